//! Builds frames. A test names only what it is about.

use std::net::IpAddr;

use netfilter_ebpf::checksum;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;

/// The machine that the frames leave.
pub const LOCAL: &str = "10.0.0.2";
pub const LOCAL_V6: &str = "fd00::2";

#[derive(Debug, Clone)]
pub struct Frame {
    pub vlans: Vec<u16>,
    pub source: Option<IpAddr>,
    pub destination: IpAddr,
    pub protocol: u8,
    pub hops: u8,
    /// What follows the IP header.
    pub payload: Vec<u8>,
    /// IPv4: offset in eight bytes, more, id.
    pub fragment: Option<(u16, bool, u32)>,
    /// IPv4 options, or IPv6 extension headers with their types.
    pub options: Vec<u8>,
    pub extensions: Vec<(u8, Vec<u8>)>,
}

pub fn to(destination: &str, protocol: u8, payload: Vec<u8>) -> Frame {
    Frame {
        vlans: Vec::new(),
        source: None,
        destination: destination.parse().unwrap(),
        protocol,
        hops: 64,
        payload,
        fragment: None,
        options: Vec::new(),
        extensions: Vec::new(),
    }
}

pub fn tcp(destination: &str, port: u16) -> Frame {
    to(destination, TCP, segment(40_000, port, SYN))
}

pub fn udp(destination: &str, port: u16) -> Frame {
    to(destination, UDP, datagram(40_000, port, b"hello"))
}

pub fn segment(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&source.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[4..8].copy_from_slice(&1000u32.to_be_bytes());
    segment[12] = 0x50;
    segment[13] = flags;
    segment
}

/// A segment with a payload. `sequence` and `acknowledged` are absolute.
pub fn carrying(
    ports: (u16, u16),
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut segment = segment(ports.0, ports.1, flags);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    segment.extend(data);
    segment
}

pub fn datagram(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    [
        &source.to_be_bytes()[..],
        &destination.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0],
        data,
    ]
    .concat()
}

impl Frame {
    /// With the checksum of TCP or UDP.
    pub fn checked(mut self) -> Self {
        let at = if self.protocol == TCP { 16 } else { 6 };
        let source = match (self.source, self.destination) {
            (Some(source), _) => source,
            (None, IpAddr::V4(_)) => LOCAL.parse().unwrap(),
            (None, IpAddr::V6(_)) => LOCAL_V6.parse().unwrap(),
        };
        let octets = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        self.payload[at..at + 2].fill(0);
        let pseudo = [
            octets(source),
            octets(self.destination),
            self.payload.clone(),
        ]
        .concat();
        let length = u32::try_from(self.payload.len()).unwrap();
        let sum = checksum::finish(checksum::sum(&pseudo) + u32::from(self.protocol) + length);
        self.payload[at..at + 2].copy_from_slice(&sum);
        self
    }

    pub fn from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().unwrap());
        self
    }

    /// As it comes back to who sent to it.
    pub fn returned(&self) -> Vec<u8> {
        let mut frame = self.bytes();
        frame[..12].rotate_left(6);
        frame
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for vlan in &self.vlans {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        let network = frame.len() + 2;
        match self.destination {
            IpAddr::V4(destination) => {
                frame.extend([0x08, 0x00]);
                let IpAddr::V4(source) = self.source.unwrap_or(LOCAL.parse().unwrap()) else {
                    panic!("families differ")
                };
                let header = 20 + self.options.len();
                let (offset, more, id) = self.fragment.unwrap_or((0, false, 1));
                let total = u16::try_from(header + self.payload.len()).unwrap();
                frame.extend([0x40 | u8::try_from(header / 4).unwrap(), 0]);
                frame.extend(total.to_be_bytes());
                frame.extend(u16::try_from(id).unwrap().to_be_bytes());
                frame.extend((offset | u16::from(more) << 13).to_be_bytes());
                frame.extend([self.hops, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(&self.options);
                let sum = checksum::finish(checksum::sum(&frame[network..]));
                frame[network + 10..network + 12].copy_from_slice(&sum);
            }
            IpAddr::V6(destination) => {
                frame.extend([0x86, 0xdd]);
                let IpAddr::V6(source) = self.source.unwrap_or(LOCAL_V6.parse().unwrap()) else {
                    panic!("families differ")
                };
                let mut extensions = self.extensions.clone();
                if let Some((offset, more, id)) = self.fragment {
                    let field = (offset << 3 | u16::from(more)).to_be_bytes();
                    extensions.push((44, [&[0, 0][..], &field, &id.to_be_bytes()].concat()));
                }
                let types: Vec<u8> = extensions
                    .iter()
                    .map(|(kind, _)| *kind)
                    .chain([self.protocol])
                    .collect();
                let length: usize = extensions
                    .iter()
                    .map(|(_, bytes)| bytes.len())
                    .sum::<usize>()
                    + self.payload.len();
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
                frame.extend([types[0], self.hops]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                for ((_, bytes), next) in extensions.iter().zip(&types[1..]) {
                    frame.push(*next);
                    frame.extend(&bytes[1..]);
                }
            }
        }
        frame.extend(&self.payload);
        frame
    }
}

/// A DNS query for a name (dotted), with an id.
pub fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(wire(name));
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// A query with an OPT record that has these bytes as its options (RFC 6891).
pub fn with_options(query: &[u8], options: &[u8]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[11] = 1;
    message.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0]);
    message.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    message.extend(options);
    message
}

/// Options of this many bytes, none of which is zero.
pub fn secret(length: usize) -> Vec<u8> {
    (0..length).map(|at| at.to_le_bytes()[0] | 1).collect()
}

/// What becomes of them.
pub fn padding(length: usize) -> Vec<u8> {
    let mut padding = vec![0; length];
    padding[1] = 12;
    padding[2..4].copy_from_slice(&(length - 4).to_be_bytes()[6..]);
    padding
}

/// An answer to a query with one record for each address, names compressed.
pub fn answer(query: &[u8], ttl: u32, addresses: &[&str]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] = 0x81;
    message[3] = 0x80;
    message[6..8].copy_from_slice(&u16::try_from(addresses.len()).unwrap().to_be_bytes());
    for address in addresses {
        let (kind, bytes) = match address.parse().unwrap() {
            IpAddr::V4(address) => (1u16, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        message.extend(bytes);
    }
    message
}

/// A record, for behind an answer.
pub fn record(owner: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    let fixed = [kind.to_be_bytes(), class.to_be_bytes()].concat();
    [owner, &fixed, &ttl.to_be_bytes(), &length, data].concat()
}

/// An answer to a query with these records.
pub fn records(query: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = answer(query, 0, &[]);
    message[7] = u8::try_from(records.len()).unwrap();
    message.extend(records.concat());
    message
}

/// With its length before it (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], message].concat()
}

pub fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}
