//! Which container a cgroup is, by the names that container runtimes give theirs.

use serde::{Deserialize, Serialize};

/// As the host's runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `machine` (of systemd-machined), or
    /// `container` where the name does not tell.
    pub runtime: String,
    /// The first twelve digits, as the runtimes show it; of some the whole name.
    pub id: String,
    /// The uid of its Kubernetes pod.
    pub pod: Option<String>,
}

/// The outermost container of a cgroup's path: names further in may be chosen by who is
/// in it.
pub(super) fn of(path: &str) -> Option<Container> {
    let mut before = "";
    let mut pod = None;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        pod = pod.or_else(|| pod_of(name));
        if let Some((runtime, id)) = runtime(name, before) {
            return Some(Container {
                runtime: runtime.to_owned(),
                id,
                pod,
            });
        }
        before = name;
    }
    None
}

/// What systemd's driver puts before the number of a container, and who.
const SCOPES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
];

fn runtime(name: &str, before: &str) -> Option<(&'static str, String)> {
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in SCOPES {
        if let Some(id) = stem.strip_prefix(prefix).and_then(short) {
            return Some((runtime, id));
        }
    }
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some(("lxc", shown(name)));
    }
    if matches!(before, "lxc" | "lxc.payload") {
        return Some(("lxc", shown(name)));
    }
    if let Some(machine) = machine(name) {
        return Some(("machine", shown(&machine)));
    }
    // The driver that makes cgroups itself.
    let id = short(name)?;
    Some(match before {
        "docker" => ("docker", id),
        "libpod_parent" => ("podman", id),
        _ => ("container", id),
    })
}

/// Of a number as runtimes make them: 64 hexadecimal digits.
fn short(id: &str) -> Option<String> {
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id[..12].to_owned())
}

/// `pod0a1b…` or, as systemd wants it, `kubepods-burstable-pod0a1b_….slice`.
fn pod_of(name: &str) -> Option<String> {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.rsplit_once("-pod") {
        Some((front, uid)) if front.starts_with("kubepods") => uid,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let bare = uid.replace('-', "");
    let is_uid = bare.len() == 32 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_uid.then_some(uid)
}

/// `machine-web\x2d1.scope`, `systemd-nspawn@web.service`
fn machine(name: &str) -> Option<String> {
    let escaped = match name.strip_prefix("machine-") {
        Some(rest) => rest.strip_suffix(".scope")?,
        None => name
            .strip_prefix("systemd-nspawn@")?
            .strip_suffix(".service")?,
    };
    Some(escaped.replace("\\x2d", "-"))
}

/// Whoever makes a container names it.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a91c0b1de4455667788990011223344556677889900112233445566778899";
    const POD: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

    #[test]
    fn containers_are_known_by_the_cgroups_that_runtimes_make() {
        let short = "3f2a91c0b1de";
        let under = POD.replace('-', "_");
        for (path, runtime, id, pod) in [
            (
                format!("/system.slice/docker-{ID}.scope"),
                "docker",
                short,
                None,
            ),
            (format!("/docker/{ID}"), "docker", short, None),
            (format!("/docker/{ID}/init.scope"), "docker", short, None),
            (
                format!("/system.slice/docker-{ID}.scope/system.slice/cron.service"),
                "docker",
                short,
                None,
            ),
            (
                format!("/machine.slice/libpod-{ID}.scope/container"),
                "podman",
                short,
                None,
            ),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
                ),
                "podman",
                short,
                None,
            ),
            (format!("/libpod_parent/{ID}"), "podman", short, None),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
                ),
                "containerd",
                short,
                Some(POD),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"),
                "cri-o",
                short,
                Some(POD),
            ),
            (
                format!("/kubepods/besteffort/pod{POD}/{ID}"),
                "container",
                short,
                Some(POD),
            ),
            (
                format!("kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"),
                "containerd",
                short,
                Some(POD),
            ),
            (format!("/ecs/task/{ID}"), "container", short, None),
            (
                "/lxc.payload.web/system.slice".to_owned(),
                "lxc",
                "web",
                None,
            ),
            ("/lxc/web".to_owned(), "lxc", "web", None),
            (
                "/machine.slice/machine-web\\x2d1.scope".to_owned(),
                "machine",
                "web-1",
                None,
            ),
            (
                "/machine.slice/systemd-nspawn@web.service".to_owned(),
                "machine",
                "web",
                None,
            ),
        ] {
            let expected = Container {
                runtime: runtime.to_owned(),
                id: id.to_owned(),
                pod: pod.map(str::to_owned),
            };
            assert_eq!(of(&path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/".to_owned(),
            "/user.slice/user-1000.slice/session-2.scope".to_owned(),
            "/system.slice/docker.service".to_owned(),
            format!("/system.slice/docker-{}.scope", &ID[1..]),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/kubepods.slice/crio-conmon-{ID}.scope"),
            format!("/podman-{ID}"),
            "/pod/podcast".to_owned(),
            "/system.slice/machine-x.service".to_owned(),
        ] {
            assert_eq!(of(&path), None, "{path}");
        }
    }

    #[test]
    fn who_is_in_a_container_cannot_seem_to_be_in_another() {
        let other = ID.replace('3', "4");
        let path = format!("/docker/{ID}/docker-{other}.scope");
        assert_eq!(of(&path).unwrap().id, "3f2a91c0b1de");
        let hostile = of("/lxc.payload.a\u{1b}[2K").unwrap();
        assert_eq!(hostile.id, "a\\u{1b}[2K");
    }
}
