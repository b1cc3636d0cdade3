//! Names in rules: `mcr.microsoft.com`, `*.data.mcr.microsoft.com`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// RFC 1035, section 2.3.4. The wire form counts its length bytes and the root.
const LABEL_MAX: usize = 63;
const WIRE_MAX: usize = 255;
/// What of [`WIRE_MAX`] can be written as text.
const TEXT_MAX: usize = 253;
/// Long enough for any name; what is longer is cut in messages.
const QUOTED_MAX: usize = 64;

/// An exact name, or a wildcard for every name below one, which never stands
/// for that name itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    wire: Box<[u8]>,
    wildcard: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the name is empty; write one such as pypi.org")]
    Empty,
    #[error(
        "`*` alone would be every name; write *.example.com, or allow addresses with a rule of \
         `type: ip`"
    )]
    Everything,
    #[error("`{0}` has an empty label; a name has one dot between two labels")]
    EmptyLabel(String),
    #[error(
        "`{0}` has a * elsewhere than alone at its front; only *.example.com is a wildcard, and \
         stands for one or more labels"
    )]
    Wildcard(String),
    #[error("the label `{label}` has {length} characters; DNS allows {LABEL_MAX}")]
    LongLabel { label: String, length: usize },
    #[error("the name `{name}` has {length} characters; DNS allows {TEXT_MAX}")]
    Long { name: String, length: usize },
    #[error("`{0}` is an address, not a name; write a rule of `type: ip` with `cidr: {0}`")]
    Address(String),
    #[error("`{url}` is a URL; a rule names only the host: {host}")]
    Url { url: String, host: String },
    #[error("`{name}` carries a port; write the name {host}, and `port_ranges: \"{port}\"`")]
    Port {
        name: String,
        host: String,
        port: String,
    },
    #[error(
        "`{name}` has the character {character:?}, which no name has; letters, digits, hyphens \
         and underscores are right"
    )]
    Character { name: String, character: char },
    #[error("`{0}` is no valid international name")]
    International(String),
}

impl Pattern {
    /// The name in DNS wire form, ASCII-lowercased: length byte and label, for
    /// each label, without the final root byte. Of a wildcard, what follows `*.`.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The name that a wildcard stands below and never for; of an exact name, itself.
    #[must_use]
    pub fn apex(&self) -> Self {
        Self {
            wire: self.wire.clone(),
            wildcard: false,
        }
    }

    /// The slow and obvious answer, which the compiled tables must agree with.
    /// `name` is in the form of [`Self::wire`], in any letter case.
    pub fn matches(&self, name: &[u8]) -> bool {
        let name = name.to_ascii_lowercase();
        if !self.wildcard {
            return name == *self.wire;
        }
        let mut rest = name.as_slice();
        while let Some((&length, label_and_rest)) = rest.split_first() {
            let Some(parent) = label_and_rest.get(usize::from(length)..) else {
                return false;
            };
            if parent == &*self.wire {
                return true;
            }
            rest = parent;
        }
        false
    }
}

impl FromStr for Pattern {
    type Err = Error;

    /// A trailing dot is allowed; international names may be in Unicode or punycode.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        refuse_what_is_no_name(text)?;
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(Error::Wildcard(quoted(text)));
        }
        let ascii = ascii(name)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        let mut wire = Vec::with_capacity(name.len() + 1);
        for label in name.split('.') {
            wire.push(label_length(label, text)?);
            wire.extend_from_slice(label.as_bytes());
        }
        if wire.len() >= WIRE_MAX {
            return Err(Error::Long {
                name: quoted(text),
                length: name.len(),
            });
        }
        Ok(Self {
            wire: wire.into(),
            wildcard,
        })
    }
}

/// Any name in wire form as dotted text, with the escapes of RFC 4343 section 2.1.
pub fn dotted(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = wire;
    while let Some((&length, behind)) = rest.split_first() {
        if !text.is_empty() {
            text.push('.');
        }
        let (label, behind) = behind.split_at(usize::from(length).min(behind.len()));
        for &byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                0x21..=0x7e => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        rest = behind;
    }
    text
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &*self.wire;
        let mut separator = if self.wildcard { "*." } else { "" };
        while let Some((&length, label_and_rest)) = rest.split_first() {
            let (label, parent) = label_and_rest.split_at(usize::from(length));
            f.write_str(separator)?;
            f.write_str(&String::from_utf8_lossy(label))?;
            separator = ".";
            rest = parent;
        }
        Ok(())
    }
}

/// What people write in the place of a name, told apart so that each can be answered.
fn refuse_what_is_no_name(text: &str) -> Result<(), Error> {
    if text.is_empty() || text == "." {
        return Err(Error::Empty);
    }
    if matches!(text, "*" | "*.") {
        return Err(Error::Everything);
    }
    let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
    if unbracketed.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        return Err(Error::Address(unbracketed.to_owned()));
    }
    if let Some((_, after)) = text.split_once("://") {
        return Err(Error::Url {
            url: quoted(text),
            host: host(after),
        });
    }
    if text.contains('/') {
        return Err(Error::Url {
            url: quoted(text),
            host: host(text),
        });
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            Err(Error::Port {
                name: quoted(text),
                host: quoted(host),
                port: port.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// The host in what follows the `//` of a URL.
fn host(authority: &str) -> String {
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    quoted(host.split(':').next().unwrap_or_default())
}

fn ascii(name: &str) -> Result<String, Error> {
    let illegal = |character: &char| {
        character.is_ascii() && !(character.is_ascii_alphanumeric() || "-_.".contains(*character))
    };
    if let Some(character) = name.chars().find(illegal) {
        return Err(Error::Character {
            name: quoted(name),
            character,
        });
    }
    let lower = name.to_ascii_lowercase();
    if lower.is_ascii() && !lower.split('.').any(|label| label.starts_with("xn--")) {
        return Ok(lower);
    }
    // The deny list is ours, above: the stricter ones refuse underscores.
    let ascii = idna::domain_to_ascii_cow(name.as_bytes(), idna::AsciiDenyList::EMPTY)
        .or(Err(Error::International(quoted(name))))?;
    match ascii.chars().find(illegal) {
        Some(character) => Err(Error::Character {
            name: quoted(name),
            character,
        }),
        None => Ok(ascii.into_owned()),
    }
}

fn label_length(label: &str, name: &str) -> Result<u8, Error> {
    match u8::try_from(label.len()) {
        Ok(0) => Err(Error::EmptyLabel(quoted(name))),
        Ok(length) if label.len() <= LABEL_MAX => Ok(length),
        // A name without dots that is too long for a name is called just that.
        _ if label.len() > TEXT_MAX => Err(Error::Long {
            name: quoted(name),
            length: name.len(),
        }),
        _ => Err(Error::LongLabel {
            label: quoted(label),
            length: label.len(),
        }),
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
