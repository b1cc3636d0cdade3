//! A denied packet or question, as the log and `events` tell it.

use std::{fmt, net::IpAddr};

use netfilter_ebpf::verdict::{Reason, Way};
use serde::{Deserialize, Serialize};

use super::sender::Sender;
use crate::{bypass, datapath, policy::source};

/// A line of `events --json`. Fields may be added. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the daemon read it.
    pub time: u64,
    /// True where audit let it pass.
    pub audited: bool,
    /// Empty for a socket.
    pub interface: String,
    /// `TCP`, or the number of a protocol without a name here. `null`, as all
    /// that follows up to `question`, where the packet has none.
    pub protocol: Option<String>,
    pub source: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination: Option<IpAddr>,
    pub destination_port: Option<u16>,
    /// What the destination was last resolved from.
    pub name: Option<String>,
    pub resolved_at: Option<u64>,
    /// The name that was asked for.
    pub question: Option<String>,
    /// `null` for what is a packet.
    #[serde(default)]
    pub socket: Option<Socket>,
    pub reason: String,
    /// The rule that denies it, or has it audited; `null` where none does.
    #[serde(default)]
    pub rule: Option<String>,
    /// Length of the frame.
    pub bytes: u32,
    /// Whose packet it is; `null` where no socket of this machine sent it.
    #[serde(default)]
    pub sender: Option<Sender>,
    /// Of the same source, before this one, that the kernel did not report.
    #[serde(default)]
    pub untold: u64,
}

/// A socket that asked for a way past the filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// `packet_qdisc_bypass` or `af_xdp`.
    pub way: String,
    /// `null`, as `program`, on kernels before 6.1.
    pub process: Option<u32>,
    pub program: Option<String>,
    /// A name, or the number of one that has none here.
    pub user: String,
}

/// Some events, oldest first, and how many before them the daemon has forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    pub skipped: u64,
    pub events: Vec<Event>,
}

impl Event {
    /// `name`: of the destination, and when it was resolved.
    pub(super) fn new(
        event: datapath::Event,
        name: Option<(String, u64)>,
        rule: Option<String>,
    ) -> Self {
        let datapath::Event {
            time,
            interface,
            reason,
            audited,
            source,
            destination,
            protocol,
            source_port,
            destination_port,
            question,
            bytes,
            untold,
            who,
        } = event;
        let (name, resolved_at) = name.unzip();
        Self {
            time,
            audited,
            // Whoever names an interface can put anything but a slash into it.
            interface: interface.escape_debug().to_string(),
            protocol: label(protocol),
            source,
            source_port: port(source_port),
            destination,
            destination_port: port(destination_port),
            name,
            resolved_at,
            question,
            socket: None,
            reason: reason.label().to_owned(),
            rule,
            bytes,
            sender: who.map(|who| Sender::new(who, &source::users())),
            untold,
        }
    }

    pub(super) fn attempt(attempt: datapath::Attempt) -> Self {
        let datapath::Attempt {
            time,
            way,
            audited,
            process,
            program,
            user,
        } = attempt;
        Self {
            time,
            audited,
            interface: String::new(),
            protocol: None,
            source: None,
            source_port: None,
            destination: None,
            destination_port: None,
            name: None,
            resolved_at: None,
            question: None,
            socket: Some(Socket {
                way: way.label().to_owned(),
                process,
                // Threads name themselves.
                program: process.map(|_| program.escape_debug().to_string()),
                user: bypass::name(&source::users(), user),
            }),
            reason: Reason::RawSocket.label().to_owned(),
            rule: None,
            bytes: 0,
            sender: None,
            untold: 0,
        }
    }

    /// `192.0.2.1 TCP 443`
    pub fn destination(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.destination.map(|address| address.to_string()));
        words.push(self.packet());
        words.extend(self.destination_port.map(|port| port.to_string()));
        words.join(" ")
    }

    fn packet(&self) -> String {
        match self.protocol.as_deref() {
            None => "a frame".to_owned(),
            Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("protocol {number}")
            }
            Some(label) => label.to_owned(),
        }
    }
}

/// The sentence, without its time.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            interface, bytes, ..
        } = self;
        let verb = if self.audited { "would deny" } else { "denied" };
        if let Some(socket) = &self.socket {
            let reason = &self.reason;
            return write!(f, "{verb}: {socket} asked for {} ({reason})", socket.what());
        }
        write!(f, "{verb} on {interface}: ")?;
        if let Some(sender) = &self.sender {
            write!(f, "{sender}, ")?;
        }
        match &self.question {
            Some(name) => write!(f, "DNS question for `{name}`")?,
            None => f.write_str(&self.packet())?,
        }
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        if let Some(destination) = self.destination {
            write!(f, " to {destination}")?;
        }
        if let (Some(port), None) = (self.destination_port, &self.question) {
            write!(f, " port {port}")?;
        }
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        write!(f, ", {bytes} bytes: ")?;
        match Reason::ALL
            .iter()
            .find(|known| known.label() == self.reason)
        {
            Some(known) => write!(f, "{} ({}", known.sentence(), known.label())?,
            None => write!(f, "({}", self.reason)?, // of a newer daemon
        }
        if let Some(rule) = &self.rule {
            write!(f, ", rule `{}`", rule.escape_debug())?;
        }
        f.write_str(")")?;
        match self.untold {
            0 => Ok(()),
            untold => write!(f, "; {untold} more from this source were not told"),
        }
    }
}

impl Socket {
    /// `a packet socket that passes by the filter`
    pub fn what(&self) -> &str {
        let known = Way::ALL.iter().find(|known| known.label() == self.way);
        known.map_or(&self.way, |known| known.sentence())
    }
}

/// `nmap (pid 812, root)`
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.program, self.process) {
            (Some(program), Some(process)) => {
                write!(f, "{program} (pid {process}, {})", self.user)
            }
            _ => write!(f, "a process of {}", self.user),
        }
    }
}

fn port(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

fn label(protocol: u8) -> Option<String> {
    match protocol {
        0 => None,
        1 => Some("ICMP".to_owned()),
        6 => Some("TCP".to_owned()),
        17 => Some("UDP".to_owned()),
        58 => Some("ICMPv6".to_owned()),
        number => Some(number.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::daemon::sender::tests::who;

    pub(crate) fn reported() -> datapath::Event {
        datapath::Event {
            time: 2,
            interface: "eth0".to_owned(),
            reason: Reason::NoRule,
            audited: false,
            source: Some([10, 0, 0, 5].into()),
            destination: Some([192, 0, 2, 1].into()),
            protocol: 6,
            source_port: 40_000,
            destination_port: 443,
            question: None,
            bytes: 74,
            untold: 0,
            who: None,
        }
    }

    fn sentence(event: datapath::Event, name: Option<&str>) -> String {
        let name = name.map(|name| (name.to_owned(), 1));
        Event::new(event, name, None).to_string()
    }

    #[test]
    fn a_denied_packet_is_a_sentence_that_names_its_destination() {
        assert_eq!(
            sentence(reported(), None),
            "denied on eth0: TCP from 10.0.0.5 to 192.0.2.1 port 443, 74 bytes: \
             no rule allows this destination, protocol and port (no_rule)"
        );
        assert_eq!(
            sentence(reported(), Some("pypi.org")),
            "denied on eth0: TCP from 10.0.0.5 to 192.0.2.1 port 443 (pypi.org), 74 bytes: \
             no rule allows this destination, protocol and port (no_rule)"
        );
    }

    #[test]
    fn a_denial_names_who_sent_it_the_rule_and_what_was_not_told() {
        let event = datapath::Event {
            who: Some(datapath::Who {
                user: 4_000_000_000,
                ..who()
            }),
            reason: Reason::DeniedByRule,
            untold: 37,
            ..reported()
        };
        let event = Event::new(event, None, Some("no-metadata".to_owned()));
        assert_eq!(
            event.to_string(),
            "denied on eth0: /usr/bin/curl (pid 812, user 4000000000, docker 3f2a91c0b1de), TCP from \
             10.0.0.5 to 192.0.2.1 port 443, 74 bytes: a rule with `action: deny` covers this \
             destination (denied_by_rule, rule `no-metadata`); 37 more from this source were not told"
        );
    }

    #[test]
    fn a_denied_question_names_the_name() {
        let question = datapath::Event {
            question: Some("evil.example".to_owned()),
            reason: Reason::DnsName,
            protocol: 17,
            destination_port: 53,
            ..reported()
        };
        assert_eq!(
            sentence(question, None),
            "denied on eth0: DNS question for `evil.example` from 10.0.0.5 to 192.0.2.1, 74 bytes: \
             no rule allows the name that was asked for (dns_name)"
        );
    }

    #[test]
    fn what_audit_let_out_was_not_denied() {
        let audited = datapath::Event {
            audited: true,
            ..reported()
        };
        assert!(sentence(audited, None).starts_with("would deny on eth0: "));
    }

    #[test]
    fn a_frame_without_addresses_is_still_told() {
        let frame = datapath::Event {
            source: None,
            destination: None,
            protocol: 0,
            destination_port: 0,
            reason: Reason::Ethertype,
            ..reported()
        };
        assert_eq!(
            sentence(frame, None),
            "denied on eth0: a frame, 74 bytes: \
             neither IPv4 nor IPv6 nor a plain ARP packet (ethertype)"
        );
    }

    #[test]
    fn the_name_of_an_interface_cannot_write_over_the_line() {
        let hostile = datapath::Event {
            interface: "e\u{1b}[2K\u{9b}\r\u{202e}".to_owned(),
            ..reported()
        };
        let told = sentence(hostile, None);
        assert!(
            told.starts_with("denied on e\\u{1b}[2K\\u{9b}\\r\\u{202e}: TCP"),
            "{told}"
        );
    }

    pub(crate) fn attempted() -> datapath::Attempt {
        datapath::Attempt {
            time: 2,
            way: Way::QdiscBypass,
            audited: false,
            process: Some(812),
            program: "nmap".to_owned(),
            user: 0,
        }
    }

    #[test]
    fn a_socket_that_was_refused_is_told_with_who_asked() {
        let told = |attempt| Event::attempt(attempt).to_string();
        assert_eq!(
            told(attempted()),
            "denied: nmap (pid 812, root) asked for a packet socket that passes by the filter (raw_socket)"
        );
        let hostile = datapath::Attempt {
            way: Way::Xdp,
            audited: true,
            program: "x\r\u{1b}[2K".to_owned(),
            user: 4_000_000_000,
            ..attempted()
        };
        assert_eq!(
            told(hostile),
            "would deny: x\\r\\u{1b}[2K (pid 812, user 4000000000) asked for an AF_XDP socket, \
             which passes by the filter (raw_socket)"
        );
        let unnamed = datapath::Attempt {
            process: None,
            ..attempted()
        };
        assert!(told(unnamed).starts_with("denied: a process of root asked for a packet"));
    }

    #[test]
    fn a_reason_of_a_newer_daemon_is_told_by_its_label() {
        let mut event = Event::new(reported(), None, None);
        event.reason = "moon_phase".to_owned();
        assert!(event.to_string().ends_with("74 bytes: (moon_phase)"));
    }
}
