//! Where a policy and its defaults come from: the one place of this room that does I/O.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use super::service_tag::lists::{Lists, Source};
use super::service_tag::{self, Catalogue};
use super::{Error, Policy, System, parse, parse_catalogue, parse_lists};

pub mod list;

/// A policy of a thousand rules has 200 KB; the largest published list 5 MB.
const FILE_MAX: u64 = 64 << 20;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PASSWD: &str = "/etc/passwd";
/// Where systemd-resolved names the servers that its stub at 127.0.0.53 asks:
/// the stub's answers are read, and so are theirs.
const UPSTREAM_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Gives the list of any source but the built-in one.
pub type Given<'g> = dyn Fn(&Source) -> Result<Catalogue, service_tag::Error> + 'g;

/// Reads the policy, and what its defaults take from the machine. The service tags that
/// it names are given.
///
/// # Errors
/// Where the policy cannot be read or is wrong, or the system does not tell its addresses.
pub fn load(path: &Path, given: &Given<'_>) -> Result<Policy, Error> {
    let text = policy(path)?;
    let file = path.display().to_string();
    parse(&text, &file, &system()?, &by_source(given))
}

/// [`load`], were this the text of the policy.
///
/// # Errors
/// Where it is wrong, or the system does not tell its addresses.
pub fn load_text(path: &Path, text: &str, given: &Given<'_>) -> Result<Policy, Error> {
    parse(
        text,
        &path.display().to_string(),
        &system()?,
        &by_source(given),
    )
}

/// The text of a policy.
///
/// # Errors
/// Where it cannot be read.
pub fn policy_text(path: &Path) -> Result<String, Error> {
    policy(path)
}

/// The service tags that the policy names, all of them.
///
/// # Errors
/// Where the policy or a list cannot be read.
pub fn catalogue(path: &Path, given: &Given<'_>) -> Result<Catalogue, Error> {
    let text = policy(path)?;
    let file = path.display().to_string();
    parse_catalogue(&text, &file, &by_source(given))
}

/// Where the policy's service tags come from; `ca` as it is found from here.
///
/// # Errors
/// Where the policy cannot be read, or names lists that cannot be.
pub fn lists(path: &Path) -> Result<Lists, Error> {
    let lists = parse_lists(&policy(path)?, &path.display().to_string())?;
    Ok(Lists {
        ca: lists.ca.map(|ca| beside(path, &ca).display().to_string()),
        ..lists
    })
}

/// What the machine says of itself.
///
/// # Errors
/// Where it does not tell its addresses. Resolvers that it does not tell are none.
pub fn system() -> Result<System, Error> {
    Ok(System {
        connected: subnets()?,
        resolvers: resolvers(|path| fs::read_to_string(path).ok()),
        users: users(),
    })
}

/// The subnets that the machine is in, which come and go; no loopback, no link-local ones.
///
/// # Errors
/// Where it does not tell its addresses.
pub fn subnets() -> Result<Vec<IpNet>, Error> {
    let addresses = getifaddrs().map_err(|errno| Error::System {
        operation: "read the addresses of the network interfaces",
        source: errno.into(),
    })?;
    Ok(connected(addresses.filter_map(|address| subnet(&address))))
}

fn policy(path: &Path) -> Result<String, Error> {
    read(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// Where a path that the policy writes leads: it is relative to the policy.
pub fn beside(policy: &Path, written: &str) -> PathBuf {
    policy.parent().unwrap_or(Path::new("")).join(written)
}

/// As the parser asks.
fn by_source<'g>(
    given: &'g Given<'_>,
) -> impl Fn(&str) -> Result<Catalogue, service_tag::Error> + 'g {
    move |written| {
        let source = Source::parse(written);
        // What makes no sense was refused when it was read.
        given(&source.unwrap_or_else(|_| Source::File(written.to_owned())))
    }
}

fn read(path: &Path) -> io::Result<String> {
    text(File::open(path)?)
}

fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("it is not UTF-8 text (byte {at}); save it as UTF-8");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn too_large() -> io::Error {
    let message = format!(
        "it has more than {} MB; is it the right file?",
        FILE_MAX >> 20
    );
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

/// The subnet of an address, unless it is a loopback interface's.
fn subnet(interface: &InterfaceAddress) -> Option<IpNet> {
    if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
        return None;
    }
    let address = ip(interface.address.as_ref()?)?;
    let mask = ip(interface.netmask.as_ref()?)?;
    IpNet::with_netmask(address, mask).ok()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn connected(subnets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut subnets: Vec<IpNet> = subnets
        .map(|subnet| subnet.trunc())
        .filter(|subnet| !subnet.addr().is_loopback() && !is_link_local(subnet.addr()))
        .collect();
    subnets.sort();
    subnets.dedup();
    subnets
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// `read` gives a file's text, if there is one.
fn resolvers(read: impl Fn(&Path) -> Option<String>) -> Vec<IpAddr> {
    let of = |path: &str| {
        let text = read(&PathBuf::from(path)).unwrap_or_default();
        name_servers(&text)
    };
    let mut servers = of(RESOLV_CONF);
    if servers.iter().all(IpAddr::is_loopback) {
        servers.extend(of(UPSTREAM_RESOLV_CONF));
    }
    servers
}

/// See resolv.conf(5). A link-local server's `%eth0` is no part of its address.
fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        let address = address.split('%').next().unwrap_or_default();
        match address.parse() {
            Ok(server) if !servers.contains(&server) => servers.push(server),
            _ => {}
        }
    }
    servers
}

/// The names and numbers of those that `/etc/passwd` has.
pub fn users() -> Vec<(String, u32)> {
    users_of(&fs::read_to_string(PASSWD).unwrap_or_default())
}

/// See passwd(5).
fn users_of(passwd: &str) -> Vec<(String, u32)> {
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
    });
    users.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(url: &str) -> Result<Catalogue, service_tag::Error> {
        let url = url.to_owned();
        Err(service_tag::Error::NotFetched { url })
    }

    /// Of files what is in them.
    fn beside_or<'f>(
        policy: &'f Path,
        fetched: &'f dyn Fn(&str) -> Result<Catalogue, service_tag::Error>,
    ) -> impl Fn(&Source) -> Result<Catalogue, service_tag::Error> + 'f {
        move |source| match source {
            Source::File(written) => list::beside(policy, written),
            Source::Url(_) | Source::BuiltIn => fetched(source.as_str()),
        }
    }

    fn servers(resolv_conf: &'static str, upstream: Option<&'static str>) -> Vec<String> {
        let read = |path: &Path| match path.to_str() {
            Some(RESOLV_CONF) => Some(resolv_conf.to_owned()),
            _ => upstream.map(str::to_owned),
        };
        resolvers(read).iter().map(IpAddr::to_string).collect()
    }

    fn subnets(texts: &[&str]) -> Vec<String> {
        let parsed = texts.iter().map(|text| text.parse().unwrap());
        connected(parsed).iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn users_are_read_as_passwd_has_them() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# a:x:1\n+::::::\nalice:x:1001:100::/:\nbroken:x\nalso:x:y:1\n";
        let expected = [("root", 0), ("# a", 1), ("alice", 1001)];
        assert_eq!(
            users_of(text),
            expected.map(|(name, id)| (name.to_owned(), id))
        );
    }

    #[test]
    fn name_servers_are_read_as_resolv_conf_has_them() {
        let text = "# nameserver 9.9.9.9\nsearch corp\nnameserver 10.0.0.2\n  nameserver\tfe80::1%eth0 # x\n\
                    nameserver 10.0.0.2\nnameservers 8.8.8.8\nnameserver\n";
        assert_eq!(servers(text, None), ["10.0.0.2", "fe80::1"]);
    }

    #[test]
    fn to_the_local_stub_the_servers_that_it_asks_are_added() {
        let stub = "nameserver 127.0.0.53\n";
        let upstream = Some("nameserver 168.63.129.16\n");
        assert_eq!(servers(stub, upstream), ["127.0.0.53", "168.63.129.16"]);
        assert_eq!(servers(stub, None), ["127.0.0.53"]);
    }

    #[test]
    fn a_server_beside_the_local_stub_is_enough() {
        let both = "nameserver 127.0.0.53\nnameserver 10.0.0.2\n";
        assert_eq!(
            servers(both, Some("nameserver 1.1.1.1\n")),
            ["127.0.0.53", "10.0.0.2"]
        );
    }

    #[test]
    fn connected_subnets_are_neither_loopback_nor_link_local() {
        assert_eq!(
            subnets(&[
                "10.0.0.4/24",
                "10.0.0.5/24",
                "127.0.0.1/8",
                "169.254.1.1/16",
                "fe80::1/64",
                "::1/128",
                "fd00::5/64",
            ]),
            ["10.0.0.0/24", "fd00::/64"]
        );
    }

    #[test]
    fn the_machine_tells_its_addresses() {
        let system = system().unwrap();
        assert!(
            system
                .connected
                .iter()
                .all(|subnet| !subnet.addr().is_loopback())
        );
    }

    #[test]
    fn a_policy_names_its_tags_relative_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lists")).unwrap();
        let list = r#"{"changeNumber":1,"cloud":"Public","values":[
            {"name":"Own","properties":{"addressPrefixes":["192.0.2.0/24"]}}]}"#;
        fs::write(folder.path().join("lists/own_20251027.json"), list).unwrap();
        let path = folder.path().join("policy.yaml");
        fs::write(&path, "service_tags: lists/own_20251027.json\n").unwrap();
        let edition = load(&path, &beside_or(&path, &none)).unwrap().catalogue;
        assert_eq!(edition.source, "lists/own_20251027.json");
        assert_eq!(edition.date.as_deref(), Some("2025-10-27"));
        assert_eq!(
            catalogue(&path, &beside_or(&path, &none))
                .unwrap()
                .edition(),
            &edition
        );
        assert!(
            catalogue(&path, &beside_or(&path, &none))
                .unwrap()
                .tag("own")
                .is_some()
        );
    }

    #[test]
    fn tags_that_are_not_there_are_a_problem_of_the_policy_s_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        fs::write(&path, "# mine\nservice_tags: none.json\n").unwrap();
        let told = load(&path, &beside_or(&path, &none))
            .unwrap_err()
            .to_string();
        assert_eq!(
            catalogue(&path, &beside_or(&path, &none))
                .unwrap_err()
                .to_string(),
            told
        );
        assert!(told.contains("policy.yaml:2:15: cannot read "), "{told}");
        assert!(told.contains("none.json: No such file"), "{told}");
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| load(path, &beside_or(path, &none)).unwrap_err().to_string();
        assert!(told(&folder.path().join("none.yaml")).contains("No such file"));
        assert!(told(folder.path()).contains("Is a directory"));
        let latin1 = folder.path().join("latin1.yaml");
        fs::write(&latin1, b"# caf\xe9\n").unwrap();
        assert!(told(&latin1).contains("not UTF-8 text (byte 5)"));
    }

    #[test]
    fn an_absurdly_large_policy_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.yaml");
        File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap();
        let told = load(&path, &beside_or(&path, &none))
            .unwrap_err()
            .to_string();
        assert!(told.contains("more than 64 MB"), "{told}");
    }

    #[test]
    fn a_list_from_the_web_is_asked_of_the_store_and_one_beside_the_policy_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        let url = "https://lists.example/a.json";
        fs::write(&path, format!("service_tags: [built-in, '{url}']\n")).unwrap();
        let told = load(&path, &beside_or(&path, &none))
            .unwrap_err()
            .to_string();
        assert!(told.contains("policy.yaml:1:26: no list from"), "{told}");
        let list = r#"{"changeNumber":7,"cloud":"Public","values":[
            {"name":"Own","properties":{"addressPrefixes":["192.0.2.0/24"]}}]}"#;
        let stored = |asked: &str| {
            assert_eq!(asked, url);
            Catalogue::parse(list, asked)
        };
        let policy = load(&path, &beside_or(&path, &stored)).unwrap();
        let sources: Vec<&str> = policy
            .editions
            .iter()
            .map(|each| each.source.as_str())
            .collect();
        assert_eq!(sources, ["built-in", url]);
        assert!(
            catalogue(&path, &beside_or(&path, &stored))
                .unwrap()
                .tag("own")
                .is_some()
        );
    }

    #[test]
    fn authorities_are_named_relative_to_the_policy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        let text = "service_tags: { from: https://lists.example/, every: 7d, ca: own.pem }\n";
        fs::write(&path, text).unwrap();
        let lists = lists(&path).unwrap();
        assert_eq!(lists.every.as_secs(), 7 * 86_400);
        assert_eq!(
            lists.ca.map(PathBuf::from),
            Some(folder.path().join("own.pem"))
        );
    }
}
