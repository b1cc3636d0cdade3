//! A real Prometheus (Debian's) scrapes a real daemon: it gets what the kernel counted; alerts
//! and dashboard ask for what there is.

mod dashboard;
mod page;
mod server;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use netfilter_daemon::lab::dns::Zone;
use page::samples;
use server::{Prometheus, promtool, repository, within};

use crate::{
    web::{self, Files},
    world::World,
};

const POLICY: &str = "
dns: { wildcard_names_per_minute: 5 }
outbound_rules:
  - { name: web, type: ip, destination: { cidr: 198.51.100.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: watched, type: ip, action: audit, destination: { cidr: 203.0.113.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: shut, type: ip, action: deny, destination: { cidr: 192.0.2.66/32, protocol: '*', port_ranges: '*' } }
  - { name: mcr, type: fqdn, destination: { fqdn: mcr.microsoft.com, protocol: TCP, port_ranges: '443' } }
  - { name: 'never \"hit\" \\\\ here', type: fqdn, destination: unused.example }
";

fn zone() -> Zone {
    let mut zone = Zone::new();
    zone.address("mcr.microsoft.com", 300, [198, 18, 0, 1].into())
        .unwrap();
    zone
}

fn traffic(world: &World) {
    assert!(world.connects("198.51.100.7", 443));
    assert!(world.connects("203.0.113.9", 443), "audited");
    assert!(!world.connects("192.0.2.66", 443));
    assert!(!world.connects("8.8.8.8", 443));
    assert!(!world.udp_echoes("8.8.8.8", 443));
    assert!(world.connects_by_name("mcr.microsoft.com", 443));
    assert!(!world.connects_by_name("secret.evil.example", 443));
}

const JOBS: [&str; 2] = ["netfilter-daemon", "text"];

/// What changes by itself, or is counted by processors of which none stands still.
const RESTLESS: [&str; 4] = [
    "netfilter_service_tags_age_seconds",
    "netfilter_program_run",
    "netfilter_map_entries",
    "netfilter_learned_addresses",
];

/// Asks the daemon for the text format, whatever Prometheus prefers.
fn ask_for_text(world: &World, port: u16) {
    let listener = world
        .protected()
        .run(|| TcpListener::bind(("127.0.0.1", port)));
    let listener = listener.unwrap().unwrap();
    let protected = world.protected().clone();
    // Ends with the test program.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            head.map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .for_each(drop);
            let daemon = protected
                .run(|| TcpStream::connect("127.0.0.1:9477"))
                .unwrap();
            let Ok(mut daemon) = daemon else { return };
            let asked =
                "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain;version=0.0.4\r\n\r\n";
            let mut page = Vec::new();
            if daemon.write_all(asked.as_bytes()).is_ok() && daemon.read_to_end(&mut page).is_ok() {
                stream.write_all(&page).ok();
            }
        }
    });
}

/// Programs are timed while this lives (bpf(2), `BPF_ENABLE_STATS`).
fn time_programs() -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    const BPF_ENABLE_STATS: libc::c_int = 32;
    let kind = 0u32; // BPF_STATS_RUN_TIME
    // SAFETY: a command that reads one number.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const kind, 4) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: new, and nobody else's.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

#[test]
fn prometheus_gets_what_the_kernel_counted_in_both_formats_and_alerts_and_dashboard_find_it() {
    let world = World::new(Some(zone()));
    let _timed = time_programs();
    let _daemon = world.enforce(POLICY);
    ask_for_text(&world, 9478);
    let prometheus = Prometheus::start(
        &world,
        "  - { job_name: netfilter-daemon, static_configs: [{ targets: ['127.0.0.1:9477'] }] }\n  \
           - { job_name: text, static_configs: [{ targets: ['127.0.0.1:9478'] }] }\n",
    );
    // A policy that was there from the first scrape on has not changed, and each job has its
    // own first.
    let has_scraped = || {
        JOBS.iter().all(|job| {
            let of_job = format!("netfilter_policy_generation{{job=\"{job}\"}}");
            !prometheus.query(&world, &of_job).is_empty()
        })
    };
    assert!(within(45, has_scraped), "{}", prometheus.log());
    traffic(&world);
    world.write_policy(&POLICY.replace("unused.example", "unused2.example"));
    assert!(world.daemon(&["reload"]).status.success());
    world.write_policy("outbound_rule: []");
    assert!(!world.daemon(&["reload"]).status.success());
    assert!(!world.connects("8.8.4.4", 443));

    let more = dashboard::shows_something(&world, &prometheus);

    // Little moves any more (a machine looks for routers): each series is there, with the
    // page's own value.
    let is_restless = |labels: &str| RESTLESS.iter().any(|name| labels.contains(name));
    let mut page = String::new();
    for job in JOBS {
        let query = format!("{{__name__=~\"netfilter_.+\", job=\"{job}\"}}");
        let mut missing = Vec::new();
        let same = || {
            page = world.metrics();
            let counted = samples(&page).into_iter();
            let counted: BTreeMap<_, _> =
                counted.filter(|(labels, _)| !is_restless(labels)).collect();
            assert!(counted.len() > 40, "{page}");
            let seen = prometheus.query(&world, &query);
            let other = counted
                .iter()
                .filter(|(labels, value)| seen.get(*labels) != Some(value));
            missing = other
                .map(|(labels, value)| format!("{labels}: {value}, not {:?}", seen.get(labels)))
                .collect();
            missing.is_empty()
        };
        assert!(
            within(45, same),
            "{job}: {missing:#?}\n{}",
            prometheus.log()
        );
    }
    let hits = |rule: &str| world.metric(&format!("netfilter_rule_hits_total{{rule=\"{rule}\"}}"));
    let counted = ["web", "watched", "shut", "mcr"].map(hits);
    assert_eq!(counted, [1, 1 + more, 1, 1], "{page}");
    assert_eq!(
        world.metric("netfilter_would_drop_packets_total{reason=\"no_rule\""),
        {
            // All packets of a connection that is only audited.
            let seen = prometheus.query(&world, "netfilter_would_drop_packets_total{job=\"text\"}");
            seen.values().map(|value| *value as u64).sum::<u64>()
        }
    );

    let rules = prometheus.api(&world, "/api/v1/rules", "");
    let mut evaluated = 0;
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        assert_eq!(rule["health"], "ok", "{rule}");
        evaluated += 1;
    }
    assert!(evaluated >= 15, "{rules}");
    let alert = prometheus.query(
        &world,
        "ALERTS{alertname=\"NetfilterReloadFailed\", alertstate=\"firing\"}",
    );
    assert!(!alert.is_empty(), "the file was refused");
    is_well_formed(&page);
}

/// `promtool check metrics` says nothing of it.
fn is_well_formed(page: &str) {
    let (_, page) = page.split_once("\r\n\r\n").unwrap();
    assert_eq!(promtool(&["check", "metrics"], page), "");
}

#[test]
fn each_alert_fires_when_it_should_and_not_when_all_is_well() {
    promtool(&["check", "rules", "packaging/prometheus-alerts.yaml"], "");
    promtool(&["test", "rules", "tests/prometheus/alerts.yaml"], "");
    let alerts = fs::read_to_string(repository().join("packaging/prometheus-alerts.yaml")).unwrap();
    let tests = fs::read_to_string(repository().join("tests/prometheus/alerts.yaml")).unwrap();
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        let fires =
            format!("        alertname: {name}\n        exp_alerts:\n          - exp_labels");
        assert!(tests.contains(&fires), "{name} is not seen firing");
        let rests = format!("eval_time: 200m, alertname: {name}, exp_alerts: []");
        assert!(tests.contains(&rests), "{name} is not seen at rest");
    }
    for line in ["summary:", "description:", "action:"] {
        let alert = "- alert: ";
        assert_eq!(
            alerts.matches(line).count(),
            alerts.matches(alert).count(),
            "{line}"
        );
    }
}

#[test]
fn prometheus_scrapes_over_tls_with_a_password() {
    let (world, files) = (World::new(None), Files::new());
    let _daemon = web::start(&world, &files, &format!("{}{}", web::TLS, web::users()));
    let job = |name: &str, password: &str| {
        format!(
            "  - job_name: {name}\n    scheme: https\n    tls_config: {{ ca_file: '{}' }}\n    \
             basic_auth: {{ username: prometheus, password: '{password}' }}\n    \
             static_configs: [{{ targets: ['127.0.0.1:9477'] }}]\n",
            files.path("ca.pem")
        )
    };
    let jobs = format!("{}{}", job("right", "correct horse"), job("wrong", "guess"));
    let prometheus = Prometheus::start(&world, &jobs);
    let up = |job: &str| {
        prometheus
            .query(&world, &format!("up{{job=\"{job}\"}}"))
            .values()
            .sum::<f64>()
    };
    assert!(within(45, || up("right") > 0.5), "{}", prometheus.log());
    let is_down = || prometheus.query(&world, "up{job=\"wrong\"} == 0").len() == 1;
    assert!(within(45, is_down));
    assert_eq!(
        prometheus
            .query(&world, "netfilter_build_info{job=\"wrong\"}")
            .len(),
        0
    );
    let shows = || {
        prometheus
            .query(&world, "netfilter_build_info{job=\"right\"}")
            .len()
            == 1
    };
    assert!(within(45, shows));
}
