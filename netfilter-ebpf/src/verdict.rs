//! What becomes of a packet, and why.

use crate::abi::Grant;

/// Declares an enum whose numbers, labels and sentences are one list.
macro_rules! labelled {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $number:literal, $label:literal, $sentence:literal; )+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $( $(#[$vmeta])* #[doc = $sentence] $variant = $number, )+ }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The metric label, event field and JSON value.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }

            /// What it means, for a person.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $( Self::$variant => $sentence, )+ }
            }

            /// The variant of a number that crossed the kernel boundary.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $( $number => Some(Self::$variant), )+ _ => None }
            }
        }
    };
}

labelled! {
    /// Why a packet was dropped: counter index, event field, metric label,
    /// `explain` sentence and documentation in one list.
    pub enum Reason {
        NoRule = 1, "no_rule", "no rule allows this destination, protocol and port";
        DeniedByRule = 2, "denied_by_rule", "a rule with `action: deny` covers this destination";
        DnsName = 3, "dns_name", "no rule allows the name that was asked for";
        DnsUnsolicited = 4, "dns_unsolicited", "a DNS answer that belongs to no question in flight";
        DnsMalformed = 5, "dns_malformed", "a DNS message to or from a resolver that is not well formed";
        Ethertype = 6, "ethertype", "neither IPv4 nor IPv6 nor a plain ARP packet";
        Malformed = 7, "malformed", "headers that are truncated or contradict themselves";
        Fragment = 8, "fragment", "a fragment whose first fragment was not let out";
        SourceRouting = 9, "source_routing", "an IPv4 source route or an IPv6 routing header";
        ExtensionHeader = 10, "extension_header", "IPv6 extension headers that are jumbograms, too many or unknown";
        TableFull = 11, "table_full", "a kernel table that had to remember something was full";
        Unready = 12, "unready", "the filter has no policy loaded";
        DnsType = 13, "dns_type", "a DNS question of a type that the policy does not list";
        DnsLimit = 14, "dns_limit", "a DNS question longer, or one new name more, than its wildcard admits";
        DnsStream = 15, "dns_stream", "a TCP segment to or from a resolver that does not go on where the last one ended";
        Surplus = 16, "surplus", "IP options, extension headers, or bytes behind a packet that nobody needs, and that could carry data";
        PlumbingLimit = 17, "plumbing_limit", "more DHCP, neighbour discovery or multicast reports in a minute than a machine needs";
        RawSocket = 18, "raw_socket", "a socket whose packets would pass by the filter";
        Unjudged = 19, "unjudged", "a packet of a workload that came by the program which judges them";
    }
}

labelled! {
    /// What became of a DNS question to a configured resolver.
    pub enum Question {
        Permitted = 0, "permitted", "a rule allows the name";
        Denied = 1, "denied", "no rule allows the name";
        Malformed = 2, "malformed", "not a well-formed question";
        TableFull = 3, "table_full", "allowed, but it could not be remembered";
        DeniedType = 4, "denied_type", "a rule allows the name, and the policy does not list the type";
        Limited = 5, "limited", "a wildcard allows the name, but not so long a one, or no more new ones now";
    }
}

labelled! {
    /// What became of a DNS answer from a configured resolver.
    pub enum Answer {
        Learned = 0, "learned", "its addresses were learned";
        Empty = 1, "empty", "it answers a question and holds no address";
        Audited = 2, "audited", "it answers a question that only audit let pass";
        Unsolicited = 3, "unsolicited", "it belongs to no question in flight";
        Malformed = 4, "malformed", "it is not a well-formed DNS message";
        TableFull = 5, "table_full", "an address could not be learned for want of room";
    }
}

labelled! {
    /// The address family of a packet.
    pub enum Family {
        Other = 0, "other", "neither IPv4 nor IPv6";
        Ipv4 = 1, "ipv4", "IPv4";
        Ipv6 = 2, "ipv6", "IPv6";
    }
}

labelled! {
    /// The protocol of a packet, as coarse as a metric label may be.
    pub enum ProtocolLabel {
        Other = 0, "other", "any other protocol";
        Tcp = 1, "tcp", "TCP";
        Udp = 2, "udp", "UDP";
        Icmp = 3, "icmp", "ICMP and ICMPv6";
    }
}

labelled! {
    /// Where an event for user space was lost.
    pub enum LossStage {
        RateLimit = 0, "rate_limit", "above the rate at which denied packets are reported";
        RingFull = 1, "ring_full", "the ring buffer was full";
        NamesFull = 2, "names_full", "the ring buffer of what names resolved to was full";
        AuditFull = 3, "audit_full", "what audit let pass found no room among what `suggest` reads";
    }
}

labelled! {
    /// A way past tc that a socket can ask for. See [`crate::guard`].
    pub enum Way {
        QdiscBypass = 1, "packet_qdisc_bypass", "a packet socket that passes by the filter";
        Xdp = 2, "af_xdp", "an AF_XDP socket, which passes by the filter";
    }
}

labelled! {
    /// When it was seen who used a socket.
    pub enum Moment {
        Connect = 1, "connect", "the process that connected the socket";
        Send = 2, "send", "the process that sent";
        Socket = 3, "socket", "the process that made the socket";
        Owner = 4, "owner", "the user and cgroup that made the socket";
    }
}

labelled! {
    /// A map that makes room by itself, and forgets in silence. The label is its name.
    pub enum Forgetful {
        Questions = 0, "QUESTIONS", "questions in flight";
        Aliases = 1, "ALIASES", "names that may be asked for on behalf of others";
        Streams = 2, "STREAMS", "TCP connections to resolvers";
        Seen = 3, "SEEN", "names that wildcards were asked for";
        Fragments = 4, "FRAGMENTS", "datagrams whose first fragment passed";
        HalfOpen = 5, "HALF_OPEN", "flows that are not proven, or over";
    }
}

labelled! {
    /// Where a flow found no room.
    pub enum LostFlow {
        Inbound = 0, "inbound", "came in, and stays where a flood can push it out";
        Outbound = 1, "outbound", "ends with the lease of the name that admitted it";
        HalfOpen = 2, "half_open", "could not be remembered at all";
    }
}

/// The decision on a packet. It becomes an action of the kernel in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    Pass(Grounds),
    /// A question to a configured resolver: it depends on the name.
    Ask,
    /// Passes because a rule says `action: audit`; counted as what would have been dropped.
    /// If it is a rule on a name, what that lent.
    Audit(Option<Grant>),
    Drop(Reason),
}

/// Why a packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grounds {
    /// What [`plumbing`](crate::plumbing) reads as such.
    Plumbing,
    /// A rule on its address.
    Rule,
    /// A rule on a name that lent its address.
    Learned(Grant),
    /// A flow that the tables cannot answer for.
    Flow,
    /// Its first fragment passed.
    Fragment,
}
