//! The drop counters, read where Prometheus would read them.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde::Serialize;

use super::namespace::Namespace;

const METRIC: &str = "netfilter_dropped_packets_total{";
const PATIENCE: Duration = Duration::from_secs(3);

/// One `netfilter_dropped_packets_total`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub reason: String,
    pub family: String,
    pub protocol: String,
    pub interface: String,
    pub packets: u64,
}

/// Asks the listener in a namespace for `/metrics`; gives the counters that are not zero.
pub fn read(namespace: &Namespace, listener: SocketAddr) -> io::Result<Vec<Dropped>> {
    let page = namespace
        .run(|| get(listener))
        .map_err(io::Error::other)??;
    let Some((head, metrics)) = page.split_once("\r\n\r\n") else {
        return Err(io::Error::other("the answer is not HTTP"));
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("the answer is {status}")));
    }
    Ok(parse(metrics))
}

fn get(listener: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&listener, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP 1.0, for an answer that comes in one piece.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {listener}\r\n\r\n").as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn parse(metrics: &str) -> Vec<Dropped> {
    let drop = |line: &str| {
        let (labels, packets) = line.strip_prefix(METRIC)?.split_once("} ")?;
        let label = |name: &str| {
            let (_, value) = labels.split_once(&format!("{name}=\""))?;
            Some(value.split_once('"')?.0.to_owned())
        };
        Some(Dropped {
            reason: label("reason")?,
            family: label("family")?,
            protocol: label("protocol")?,
            interface: label("interface")?,
            packets: packets.trim().parse().ok()?,
        })
    };
    metrics
        .lines()
        .filter_map(drop)
        .filter(|drop| drop.packets > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drops_that_happened_are_read() {
        let metrics = "\
# HELP netfilter_dropped_packets_total Packets that were kept from leaving.
# TYPE netfilter_dropped_packets_total counter
netfilter_dropped_packets_total{reason=\"no_rule\",family=\"ipv4\",protocol=\"tcp\",interface=\"eth0\"} 7
netfilter_dropped_packets_total{reason=\"no_rule\",family=\"ipv6\",protocol=\"tcp\",interface=\"eth0\"} 0
netfilter_dropped_bytes_total{reason=\"no_rule\",family=\"ipv4\",protocol=\"tcp\",interface=\"eth0\"} 420
";
        let drop = Dropped {
            reason: "no_rule".into(),
            family: "ipv4".into(),
            protocol: "tcp".into(),
            interface: "eth0".into(),
            packets: 7,
        };
        assert_eq!(parse(metrics), [drop]);
    }
}
