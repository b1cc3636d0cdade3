//! Netlink messages to values, and requests to bytes. Integers are in native order.

use std::io;

use super::{Filter, Link, XdpMode};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// Without the flags for nested attributes and byte order.
const ATTRIBUTE_KIND: u16 = 0x3fff;

pub(super) struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

/// The messages in one datagram.
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let body = self.0.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            body,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    }
}

impl Message<'_> {
    /// The list changed while it was told.
    pub(super) const fn was_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// Whether the answer is complete, or an error.
    pub(super) fn ends(&self) -> Option<io::Result<()>> {
        match (self.kind, u32_at(self.body, 0).map(u32::cast_signed)) {
            (NLMSG_DONE | NLMSG_ERROR, Some(code @ ..0)) => {
                Some(Err(io::Error::from_raw_os_error(-code)))
            }
            (NLMSG_DONE | NLMSG_ERROR, _) => Some(Ok(())),
            _ => None,
        }
    }
}

/// A request to list everything of a kind. `body` follows the header.
pub(super) fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// `struct ifinfomsg` and the attributes `IFLA_` (include/uapi/linux/if_link.h).
pub(super) fn link(message: &Message<'_>) -> Option<Link> {
    const NAME: u16 = 3;
    const LINK: u16 = 5;
    const MASTER: u16 = 10;
    const INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const LINK_NETNSID: u16 = 37;
    const XDP: u16 = 43;
    const XDP_ATTACHED: u16 = 2;
    const UP: u32 = 1;
    const LOOPBACK: u32 = 8;
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    let flags = u32_at(message.body, 8)?;
    let mut link = Link {
        index: u32_at(message.body, 4)?,
        hardware: u16_at(message.body, 2)?,
        up: flags & UP != 0,
        loopback: flags & LOOPBACK != 0,
        ..Link::default()
    };
    let mut elsewhere = false;
    for (kind, value) in attributes(message.body.get(16..)?) {
        match kind {
            NAME => link.name = text(value),
            LINK => link.lower = u32_at(value, 0).filter(|index| *index != 0),
            MASTER => link.master = u32_at(value, 0).filter(|index| *index != 0),
            INFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == INFO_KIND)
                    .map(|(_, value)| text(value));
            }
            LINK_NETNSID => elsewhere = true,
            XDP => {
                link.xdp = attributes(value)
                    .find(|(kind, _)| *kind == XDP_ATTACHED)
                    .and_then(|(_, value)| XdpMode::of(*value.first()?));
            }
            _ => {}
        }
    }
    // The number is one of another network namespace.
    link.lower = link.lower.filter(|_| !elsewhere);
    Some(link)
}

/// `struct tcmsg` and the attributes `TCA_` (include/uapi/linux/rtnetlink.h, pkt_cls.h).
pub(super) fn filter(message: &Message<'_>) -> Option<Filter> {
    const OPTIONS: u16 = 2;
    const BPF_NAME: u16 = 7;
    const BPF_ID: u16 = 11;
    if message.kind != libc::RTM_NEWTFILTER {
        return None;
    }
    // Zero stands for the list of all filters of one priority.
    let handle = u32_at(message.body, 8).filter(|handle| *handle != 0)?;
    let options = attributes(message.body.get(20..)?).find(|(kind, _)| *kind == OPTIONS);
    let (mut name, mut id) = (None, None);
    for (kind, value) in attributes(options.map_or(&[], |(_, value)| value)) {
        match kind {
            BPF_NAME => name = Some(text(value)),
            BPF_ID => id = u32_at(value, 0),
            _ => {}
        }
    }
    Some(Filter {
        handle,
        program: name.zip(id),
    })
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_KIND;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        request(kind, body)
    }

    fn described(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; 16];
        body[2..4].copy_from_slice(&1u16.to_ne_bytes());
        body[4..8].copy_from_slice(&7u32.to_ne_bytes());
        body[8..12].copy_from_slice(&1u32.to_ne_bytes());
        for (kind, value) in attributes {
            attribute(&mut body, *kind, value);
        }
        message(libc::RTM_NEWLINK, &body)
    }

    fn read(bytes: &[u8]) -> Option<Link> {
        Messages::of(bytes).find_map(|message| link(&message))
    }

    #[test]
    fn a_link_is_read_with_what_it_is_and_belongs_to() {
        let mut info = Vec::new();
        attribute(&mut info, 1, b"vlan\0");
        let mut xdp = Vec::new();
        attribute(&mut xdp, 2, &[2]);
        let bytes = described(&[
            (43 | 0x8000, &xdp),
            (3, b"eth0.5\0"),
            (10, &3u32.to_ne_bytes()),
            (5, &2u32.to_ne_bytes()),
            (18 | 0x8000, &info),
        ]);
        let expected = Link {
            index: 7,
            name: "eth0.5".to_owned(),
            up: true,
            loopback: false,
            hardware: 1,
            kind: Some("vlan".to_owned()),
            master: Some(3),
            lower: Some(2),
            xdp: Some(XdpMode::Generic),
        };
        assert_eq!(read(&bytes), Some(expected));
    }

    #[test]
    fn a_number_of_another_namespace_is_no_neighbour_here() {
        let bytes = described(&[(5, &2u32.to_ne_bytes()), (37, &0u32.to_ne_bytes())]);
        assert_eq!(read(&bytes).unwrap().lower, None);
    }

    #[test]
    fn cut_messages_end_the_list_without_a_panic() {
        let bytes = described(&[(3, b"eth0\0"), (18, &[9, 0, 1, 0, b'v'])]);
        for end in 0..bytes.len() {
            let mut cut = bytes[..end].to_vec();
            read(&cut);
            if let (Some(length), Ok(end)) = (cut.first_chunk_mut(), u32::try_from(end)) {
                *length = end.to_ne_bytes();
            }
            read(&cut);
        }
    }

    #[test]
    fn an_answer_ends_with_done_or_with_what_went_wrong() {
        let done = message(NLMSG_DONE, &[0; 4]);
        assert!(Messages::of(&done).next().unwrap().ends().unwrap().is_ok());
        let refused = message(NLMSG_ERROR, &(-1i32).to_ne_bytes());
        let error = Messages::of(&refused).next().unwrap().ends().unwrap();
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
