//! What was denied, in the log, at a bounded rate.

use std::time::{Duration, Instant};

use crate::{
    datapath::{Event, Events},
    rate::Rate,
};

const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(200);

/// Logs what the kernel reports for as long as the process lives.
pub(super) async fn log(mut events: Events) {
    let mut lines = Rate::new(BURST, INTERVAL, Instant::now());
    loop {
        match events.next().await {
            Ok(event) => {
                let Some(untold) = lines.admit(Instant::now()) else {
                    continue;
                };
                if untold > 0 {
                    tracing::info!("{untold} denials were not logged; the metrics count them all");
                }
                tracing::info!("{}", sentence(&event));
            }
            Err(error) => {
                tracing::error!("denials cannot be read: {error}");
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
    }
}

fn sentence(event: &Event) -> String {
    let verb = if event.audited {
        "would deny"
    } else {
        "denied"
    };
    let mut what = match &event.question {
        Some(name) => format!("DNS question for `{name}`"),
        None => protocol(event.protocol),
    };
    if let Some(source) = event.source {
        what.push_str(&format!(" from {source}"));
    }
    if let Some(destination) = event.destination {
        what.push_str(&format!(" to {destination}"));
        if event.question.is_none() && event.destination_port != 0 {
            what.push_str(&format!(" port {}", event.destination_port));
        }
    }
    let Event {
        interface,
        reason,
        bytes,
        ..
    } = event;
    format!(
        "{verb} on {interface}: {what}, {bytes} bytes: {} ({})",
        reason.sentence(),
        reason.label()
    )
}

fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        0 => "a frame".to_owned(),
        number => format!("protocol {number}"),
    }
}

#[cfg(test)]
mod tests {
    use netfilter_ebpf::verdict::Reason;

    use super::*;

    fn event() -> Event {
        Event {
            interface: "eth0".to_owned(),
            reason: Reason::NoRule,
            audited: false,
            source: Some([10, 0, 0, 5].into()),
            destination: Some([192, 0, 2, 1].into()),
            protocol: 6,
            destination_port: 443,
            question: None,
            bytes: 74,
        }
    }

    #[test]
    fn a_denied_packet_is_a_sentence() {
        assert_eq!(
            sentence(&event()),
            "denied on eth0: TCP from 10.0.0.5 to 192.0.2.1 port 443, 74 bytes: \
             no rule allows this destination, protocol and port (no_rule)"
        );
    }

    #[test]
    fn a_denied_question_names_the_name() {
        let question = Event {
            question: Some("evil.example".to_owned()),
            reason: Reason::DnsName,
            protocol: 17,
            destination_port: 53,
            ..event()
        };
        assert_eq!(
            sentence(&question),
            "denied on eth0: DNS question for `evil.example` from 10.0.0.5 to 192.0.2.1, 74 bytes: \
             no rule allows the name that was asked for (dns_name)"
        );
    }

    #[test]
    fn what_audit_let_out_was_not_denied() {
        assert!(
            sentence(&Event {
                audited: true,
                ..event()
            })
            .starts_with("would deny on eth0: ")
        );
    }

    #[test]
    fn a_frame_without_addresses_is_still_told() {
        let frame = Event {
            source: None,
            destination: None,
            protocol: 0,
            destination_port: 0,
            reason: Reason::Ethertype,
            ..event()
        };
        assert_eq!(
            sentence(&frame),
            "denied on eth0: a frame, 74 bytes: \
             neither IPv4 nor IPv6 nor a plain ARP packet (ethertype)"
        );
    }
}
