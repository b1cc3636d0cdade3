//! A DNS server for names that the lab makes up.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use hickory_server::{
    Server,
    proto::{
        ProtoError,
        rr::{
            LowerName, Name, RData, Record,
            rdata::{CNAME, SOA},
        },
    },
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::{Builder, Runtime},
};

use super::{namespace::Namespace, sink};

const PORT: u16 = 53;

/// How long an idle TCP connection is kept.
const IDLE: Duration = Duration::from_secs(5);

/// How many answers may wait on one TCP connection.
const PENDING_ANSWERS: usize = 16;

/// The names that a [`Resolver`] knows. They all are in one zone, the root, so
/// that an answer holds its whole chain of aliases, as from a recursive resolver.
pub struct Zone {
    records: InMemoryZoneHandler,
}

impl Zone {
    pub fn new() -> Self {
        let mut records =
            InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny);
        let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86400, 60);
        records.upsert_mut(Record::from_rdata(Name::root(), 60, RData::SOA(soa)), 1);
        Self { records }
    }

    /// Adds an A or AAAA record. A name may have several of both.
    pub fn address(&mut self, name: &str, ttl: u32, address: IpAddr) -> Result<(), ProtoError> {
        self.record(name, ttl, address.into())
    }

    /// Adds a CNAME record. A chain is followed for eight records.
    pub fn alias(&mut self, name: &str, ttl: u32, target: &str) -> Result<(), ProtoError> {
        self.record(name, ttl, RData::CNAME(CNAME(absolute(target)?)))
    }

    fn record(&mut self, name: &str, ttl: u32, data: RData) -> Result<(), ProtoError> {
        self.records
            .upsert_mut(Record::from_rdata(absolute(name)?, ttl, data), 1);
        Ok(())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::new()
    }
}

/// A running DNS server, on UDP and TCP. Dropping it stops it.
pub struct Resolver {
    _server: Server<Catalog>,
    _runtime: Runtime,
}

impl Resolver {
    /// Serves `zone` on port 53 of these addresses of a namespace.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr], zone: Zone) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("resolver")
            .enable_all()
            .build()?;
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::from(Name::root()), vec![Arc::new(zone.records)]);
        let mut server = Server::new(catalog);
        let inside_runtime = runtime.enter();
        for &address in addresses {
            let (udp, tcp) = namespace
                .run(|| {
                    let address = (address, PORT).into();
                    io::Result::Ok((sink::udp_socket(address)?, sink::tcp_listener(address)?))
                })
                .map_err(io::Error::other)??;
            server.register_socket(UdpSocket::from_std(udp)?);
            server.register_listener(TcpListener::from_std(tcp)?, IDLE, PENDING_ANSWERS);
        }
        drop(inside_runtime);
        Ok(Self {
            _server: server,
            _runtime: runtime,
        })
    }
}

fn absolute(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    Ok(name)
}
