//! How packets get to an address, as iproute2 tells it.

use std::net::IpAddr;

use serde_json::Value;

use super::Error;
use crate::lab::namespace::Namespace;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: String,
    pub(super) local: IpAddr,
    /// Whom frames are addressed to: the router, or the sink itself.
    pub(super) gateway: [u8; 6],
}

impl Route {
    /// Packets must have gone there before, or the kernel does not know the gateway.
    pub(super) fn to(own: &Namespace, to: IpAddr) -> Result<Self, Error> {
        let ask = |arguments: &[&str]| -> Result<Value, Error> {
            let output = own.command("ip").arg("-json").args(arguments).output()?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            serde_json::from_slice(&output.stdout).map_err(|error| {
                let why = format!("`ip` says {said:?}: {error}");
                Error::Route { to, why }
            })
        };
        let unknown = |why: &str| Error::Route {
            to,
            why: why.to_owned(),
        };
        let route = ask(&["route", "get", &to.to_string()])?;
        let (interface, local, hop) =
            hop(&route, to).ok_or_else(|| unknown("the kernel names no interface"))?;
        let hop = hop.to_string();
        let neighbours = ask(&["neigh", "show", "to", &hop, "dev", &interface])?;
        let gateway = hardware(&neighbours)
            .ok_or_else(|| unknown(&format!("the hardware address of {hop} is not known")))?;
        Ok(Self {
            interface,
            local,
            gateway,
        })
    }
}

/// The interface, the address there, and the next machine on the way.
fn hop(route: &Value, to: IpAddr) -> Option<(String, IpAddr, IpAddr)> {
    let route = route.get(0)?;
    let text = |key: &str| route.get(key)?.as_str();
    let hop = match route.get("via") {
        Some(via) => via.get("host")?.as_str()?.parse().ok()?,
        None => text("gateway").map_or(Some(to), |gateway| gateway.parse().ok())?,
    };
    Some((text("dev")?.to_owned(), text("prefsrc")?.parse().ok()?, hop))
}

fn hardware(neighbours: &Value) -> Option<[u8; 6]> {
    let text = neighbours.get(0)?.get("lladdr")?.as_str()?;
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iproute2_says_is_read() {
        let sink: IpAddr = "192.0.2.7".parse().unwrap();
        let read = |text: &str| hop(&serde_json::from_str(text).unwrap(), sink);
        let expected = |hop: &str| {
            let local = "10.0.0.1".parse().unwrap();
            Some(("eth0".to_owned(), local, hop.parse().unwrap()))
        };
        assert_eq!(
            read(
                r#"[{"dst":"192.0.2.7","gateway":"10.0.0.254","dev":"eth0","prefsrc":"10.0.0.1","flags":[]}]"#
            ),
            expected("10.0.0.254")
        );
        assert_eq!(
            read(r#"[{"dst":"192.0.2.7","dev":"eth0","prefsrc":"10.0.0.1"}]"#),
            expected("192.0.2.7")
        );
        assert_eq!(
            read(
                r#"[{"dst":"192.0.2.7","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0","prefsrc":"10.0.0.1"}]"#
            ),
            expected("fe80::1")
        );
        assert_eq!(read("[]"), None);
        let neighbours = r#"[{"dst":"10.0.0.254","lladdr":"02:00:00:00:00:fe","state":["STALE"]}]"#;
        let neighbours = serde_json::from_str(neighbours).unwrap();
        assert_eq!(hardware(&neighbours), Some([2, 0, 0, 0, 0, 0xfe]));
        let failed = serde_json::from_str(r#"[{"dst":"10.0.0.254","state":["FAILED"]}]"#).unwrap();
        assert_eq!(hardware(&failed), None);
    }
}
