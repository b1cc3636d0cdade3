use super::*;
use crate::{
    daemon::overview::tests::{HOSTILE, nothing, some},
    golden,
};

#[test]
fn the_page_reads_as_it_should() {
    golden::check("page.html", &render(&some(), Detail::Told));
}

#[test]
fn a_daemon_with_nothing_to_show_says_so_everywhere() {
    let page = render(&nothing(), Detail::Told);
    for said in [
        "No problem is known.",
        "Nothing was denied in the 45 s since the daemon started.",
        "No name was denied in the last hour.",
        "No process was denied anything in the last hour.",
        "The policy has no rule: it allows nothing.",
        "The policy uses no service tag.",
        "No address is learned from DNS now.",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert!(!page.contains("<svg"), "a chart of nothing");
}

#[test]
fn no_text_of_others_becomes_markup_or_turns_what_is_around_it() {
    let page = render(&some(), Detail::Told);
    let own = page.replace(SCRIPT, "").replace(STYLE, "");
    assert_eq!(own.matches("<script").count(), 1, "its own");
    assert_eq!(own.matches("<style").count(), 1, "its own");
    for never in [
        "<img",
        "<base",
        "onerror=\"",
        "href=\"javascript",
        "\u{202e}",
        "\u{1b}",
        "\r",
    ] {
        assert!(!own.contains(never), "{never:?}");
    }
    for shown in [
        "&lt;script&gt;document.title",
        "\\u{202e}gpj.exe\\u{1b}[2J\\r\\n",
        "&amp;#x202e;",
    ] {
        assert!(own.contains(shown), "{shown}");
    }
    assert_eq!(HOSTILE.len(), 5);
}

#[test]
fn who_asks_from_elsewhere_is_told_no_names_and_no_processes() {
    let page = render(&some(), Detail::Withheld);
    assert!(page.contains("is shown to who asks from the machine itself"));
    for withheld in [
        "pypi.org",
        "/usr/bin/pip3",
        "evil.example",
        "203.0.113.9",
        "nmap",
    ] {
        assert!(!page.contains(withheld), "{withheld}");
    }
    assert!(
        page.contains("no_rule") && page.contains("<svg"),
        "what the metrics tell, too"
    );
}

#[test]
fn what_is_wrong_is_said_before_all_else() {
    let mut overview = some();
    overview.daemon.complaint = Some("packets are not filtered on eth1".to_owned());
    overview.daemon.policy.failed_reloads = 2;
    overview.tables[0].entries = overview.tables[0].max_entries;
    let page = render(&overview, Detail::Told);
    for problem in [
        "packets are not filtered on eth1",
        "2 reloads failed",
        "could not be refreshed",
        "LEASES is full",
    ] {
        let at = page.find(problem).expect(problem);
        assert!(at < page.find("id=\"denied\"").unwrap(), "{problem}");
    }
}

#[test]
fn audit_is_not_called_enforcement_nor_what_passed_denied() {
    let mut overview = some();
    overview.daemon.enforcing = false;
    for drops in &mut overview.hour.by_reason {
        drops.audited = true;
    }
    let page = render(&overview, Detail::Told);
    assert!(page.contains("<strong>Auditing</strong>") && !page.contains("<strong>Enforcing"));
    assert!(page.contains("that would be denied, and that audit let pass,"));
    assert!(!page.contains("</strong> denied"), "none was");
    assert!(page.contains("no_rule (audit let it pass)"));
}

#[test]
fn a_long_name_keeps_its_end() {
    let mut overview = some();
    overview.names.rows[0].subject.what = format!("{}.evil.example", "x".repeat(1000));
    let page = render(&overview, Detail::Told);
    assert!(page.contains("x.evil.example</bdi>"));
    assert!(!page.contains(&"x".repeat(LONGEST)));
}
