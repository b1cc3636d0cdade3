//! A web server that does what it is told, over TLS.
//!
//! Its certificates are made once, for the years 2020 to 2120, and its key is known to all:
//! only these tests believe `ca.pem`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use netfilter_daemon::lab::namespace::Namespace;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

pub const CA: &str = include_str!("ca.pem");
pub const OTHER_CA: &str = include_str!("other-ca.pem");

pub type Stream = StreamOwned<ServerConnection, TcpStream>;
/// Gets the request's head, and answers.
type Behaviour = Arc<dyn Fn(&str, &mut Stream) + Send + Sync>;

pub struct Server {
    pub address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// On a port of this machine's loopback, or of a namespace's.
    pub fn start(namespace: Option<&Namespace>, address: &str) -> Self {
        let bind = || TcpListener::bind(address).unwrap();
        let listener = match namespace {
            Some(namespace) => namespace.run(bind).unwrap(),
            None => bind(),
        };
        let server = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(Arc::new(|_, _| {}))),
            requests: Arc::default(),
        };
        let (behaviour, requests) = (server.behaviour.clone(), server.requests.clone());
        let config = config();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (behaviour, requests) = (behaviour.clone(), requests.clone());
                let config = config.clone();
                thread::spawn(move || serve(stream.unwrap(), config, &behaviour, &requests));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn does(&self, behaviour: impl Fn(&str, &mut Stream) + Send + Sync + 'static) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// A body, with headers that end in `\r\n`.
    pub fn sends(&self, headers: &str, body: &str) {
        let (headers, body) = (headers.to_owned(), body.to_owned());
        self.does(move |_, stream| answer(stream, "200 OK", &headers, &body));
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

pub fn answer(stream: &mut Stream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    // A client that has seen enough goes away.
    let sent = stream.write_all(head.as_bytes());
    sent.and_then(|()| stream.write_all(body.as_bytes())).ok();
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    behaviour: &Mutex<Behaviour>,
    requests: &Mutex<Vec<String>>,
) {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut head = String::new();
    let mut reader = BufReader::new(&mut stream);
    while !head.ends_with("\r\n\r\n") {
        match reader.read_line(&mut head) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    drop(reader);
    requests.lock().unwrap().push(head.clone());
    let behaviour = behaviour.lock().unwrap().clone();
    behaviour(&head, &mut stream);
    stream.conn.send_close_notify();
    stream.flush().ok();
}

fn config() -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("server.key")).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    Arc::new(config)
}
