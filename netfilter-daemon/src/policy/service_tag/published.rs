//! What the published lists have in common: prefixes, and version numbers.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer, Unexpected, Visitor};

/// A prefix as published. A single address is a prefix of its own; bits behind the
/// prefix length, which no list has had so far, are dropped as a router would.
pub(super) struct Prefix(pub(super) IpNet);

/// A number in Azure's download; a string in its REST form and in other clouds' lists.
#[derive(Default)]
pub(super) struct Version(pub(super) u64);

/// `None` where the text is neither a prefix nor an address.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc()),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

impl<'de> Deserialize<'de> for Prefix {
    /// Reads from the borrowed text: 93,000 strings are not worth allocating.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Prefix;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prefix such as 10.20.0.0/16")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prefix, E> {
                prefix(text)
                    .map(Prefix)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version number, or one in a string")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Version, E> {
                Ok(Version(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                match text.parse() {
                    Ok(number) => Ok(Version(number)),
                    Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}
