//! Builds packets, honest ones and others. Addresses of one packet are of one family.

use std::net::IpAddr;

use netfilter_ebpf::checksum;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const PSH_ACK: u8 = 0x18;

/// An IP packet; what nobody sets is as an honest sender has it.
#[derive(Debug, Clone)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub hops: u8,
    /// Identifies a datagram's fragments.
    pub id: u32,
    /// The offset in units of eight bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    /// IPv4, padded to words.
    pub options: Vec<u8>,
    /// IPv6: types and bytes. The first byte of each is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            hops: 64,
            id: 1,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
            payload,
        }
    }

    /// A datagram with its checksum.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), data: &[u8]) -> Self {
        let mut payload = ports(source.1, destination.1);
        payload.extend(short(8 + data.len()));
        payload.extend([0, 0]);
        payload.extend(data);
        Self::new(source.0, destination.0, UDP, payload).checked(6)
    }

    /// A segment with its checksum.
    pub fn tcp(
        source: (IpAddr, u16),
        destination: (IpAddr, u16),
        (sequence, acknowledged): (u32, u32),
        flags: u8,
        data: &[u8],
    ) -> Self {
        let mut payload = ports(source.1, destination.1);
        payload.extend(sequence.to_be_bytes());
        payload.extend(acknowledged.to_be_bytes());
        payload.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        payload.extend(data);
        Self::new(source.0, destination.0, TCP, payload).checked(16)
    }

    /// ICMP or ICMPv6, by the family, with its checksum. `body` follows the checksum.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, body: &[u8]) -> Self {
        let protocol = if source.is_ipv4() { ICMP } else { ICMPV6 };
        let payload = [&[kind, code, 0, 0], body].concat();
        Self::new(source, destination, protocol, payload).checked(2)
    }

    /// Fills in the checksum, which is so far into the payload.
    pub fn checked(mut self, at: usize) -> Self {
        self.payload[at..at + 2].fill(0);
        let mut sum = checksum::sum(&self.payload);
        if self.protocol != ICMP {
            sum += checksum::sum(&octets(self.source)) + checksum::sum(&octets(self.destination));
            sum +=
                u32::from(self.protocol) + u32::from(u16::from_be_bytes(short(self.payload.len())));
        }
        self.payload[at..at + 2].copy_from_slice(&checksum::finish(sum));
        self
    }

    pub fn ethertype(&self) -> u16 {
        if self.destination.is_ipv4() {
            IPV4
        } else {
            IPV6
        }
    }

    /// From the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        if self.destination.is_ipv4() {
            self.ipv4()
        } else {
            self.ipv6()
        }
    }

    fn ipv4(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let words = u8::try_from(header / 4).unwrap_or_default();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let [.., high, low] = self.id.to_be_bytes();
        let mut packet = vec![0x40 | words, 0];
        packet.extend(short(header + self.payload.len()));
        packet.extend([high, low]);
        packet.extend((offset | u16::from(more) << 13).to_be_bytes());
        packet.extend([self.hops, self.protocol, 0, 0]);
        packet.extend(octets(self.source));
        packet.extend(octets(self.destination));
        packet.extend(&self.options);
        let sum = checksum::finish(checksum::sum(&packet));
        packet[10..12].copy_from_slice(&sum);
        packet.extend(&self.payload);
        packet
    }

    fn ipv6(&self) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            let header = [&[0, 0][..], &field, &self.id.to_be_bytes()].concat();
            extensions.push((44, header));
        }
        let kinds = extensions.iter().map(|(kind, _)| *kind);
        let mut kinds = kinds.chain([self.protocol]);
        let first = kinds.next().unwrap_or(self.protocol);
        let mut body = Vec::new();
        for ((_, bytes), next) in extensions.iter().zip(kinds) {
            body.push(next);
            body.extend(&bytes[1..]);
        }
        body.extend(&self.payload);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(short(body.len()));
        packet.extend([first, self.hops]);
        packet.extend(octets(self.source));
        packet.extend(octets(self.destination));
        packet.extend(body);
        packet
    }
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// A length; of what is longer than headers can say, nonsense.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_that_receivers_compute() {
        let [v4, v6] = ["10.0.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let packets = [
            Packet::udp((v4, 7), (v4, 9), b"odd"),
            Packet::tcp((v6, 7), (v6, 9), (1, 2), SYN, b"data"),
            Packet::icmp(v6, v6, 128, 0, b"body"),
        ];
        for packet in packets {
            let length = u32::try_from(packet.payload.len()).unwrap();
            let pseudo = [octets(packet.source), octets(packet.destination)].concat();
            let sum = checksum::sum(&pseudo) + u32::from(packet.protocol) + length;
            let all = checksum::finish(sum + checksum::sum(&packet.payload));
            assert_eq!(all, [0, 0], "{packet:?}");
        }
        let header = &Packet::icmp(v4, v4, 8, 0, b"body").bytes()[..20];
        assert_eq!(checksum::finish(checksum::sum(header)), [0, 0]);
    }

    #[test]
    fn extension_headers_name_what_follows() {
        let address = "fd00::1".parse().unwrap();
        let mut packet = Packet::udp((address, 7), (address, 9), b"data");
        packet.extensions = vec![(0, vec![0; 8]), (60, vec![0; 8])];
        packet.fragment = Some((2, true));
        let bytes = packet.bytes();
        assert_eq!(
            (bytes[6], bytes[40], bytes[48], bytes[56]),
            (0, 60, 44, UDP)
        );
        assert_eq!(bytes[58..60], [0, 17]);
        assert_eq!(
            usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
            bytes.len() - 40
        );
    }
}
