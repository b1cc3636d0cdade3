//! Entries with fields, for systemd's journal (systemd.journal-fields(7), and its native
//! protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).

use std::{
    env, io,
    os::{fd::AsFd, unix::net::UnixDatagram},
};

use nix::sys::stat::fstat;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether what is written there goes to the journal: systemd names the stream that it
/// made for that, and who puts another in its place does not change the name.
pub(super) fn reads(stream: impl AsFd) -> bool {
    let named = env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(stream).is_ok_and(|status| named == format!("{}:{}", status.st_dev, status.st_ino))
}

/// An entry as it is sent: `NAME=value`, and where the value has several lines its length.
pub(super) fn entry(fields: &[(&'static str, String)]) -> Vec<u8> {
    let mut entry = Vec::new();
    for (name, value) in fields {
        entry.extend(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend((value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

/// Waits while the journal has no room.
pub(super) fn send(entry: &[u8]) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(entry, SOCKET).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_several_lines_has_its_length_and_can_be_no_other_field() {
        let fields = [
            ("MESSAGE", "denied".to_owned()),
            ("NETFILTER_PROGRAM", "x\nPRIORITY=0".to_owned()),
            ("NETFILTER_NAME", String::new()),
        ];
        let expected = [
            &b"MESSAGE=denied\nNETFILTER_PROGRAM\n"[..],
            &[12, 0, 0, 0, 0, 0, 0, 0],
            b"x\nPRIORITY=0\nNETFILTER_NAME=\n",
        ];
        assert_eq!(entry(&fields), expected.concat());
    }
}
