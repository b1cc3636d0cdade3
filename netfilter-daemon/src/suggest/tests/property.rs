//! What was seen passes by what is suggested, or is left out by name; and nothing else passes.

use super::*;

const POLICIES: [&str; 7] = [
    "isolation_mode: allow_internet_outbound\n",
    "presets: [azure-ml]\nisolation_mode: 'allow_internet_outbound' # watch\noutbound_rules: [] # none yet\n",
    "outbound_rules:\n- name: mine\n  type: fqdn\n  destination: a.example.com\n  # the end\n\ninbound: []\n",
    "- { name: no-net, type: ip, action: deny, destination: { cidr: 198.51.100.0/28, protocol: '*', port_ranges: '*' } }\n- { name: no-name, type: fqdn, action: deny, destination: '*.evil.example' }\n",
    "managed_network:\n  isolation_mode: allow_internet_outbound\n  outbound_rules:\n    - name: mine\n      type: service_tag\n      destination:\n        service_tag: AzureActiveDirectory\n        protocol: TCP\n        port_ranges: \"443\"\n",
    "{ \"isolationMode\": \"AllowInternetOutbound\", \"resolvers\": [\"127.0.0.53\", \"10.99.0.1\"], \"outboundRules\": { \"mine\": { \"type\": \"FQDN\", \"destination\": \"*.b.example.com\" } } }",
    "dns: { query_types: [A], wildcard_name_length: 20 }\noutbound_rules:\n  - { name: mine, type: fqdn, destination: { fqdn: '*.example.com', protocol: TCP, port_ranges: '80' } }\n",
];

fn address() -> impl Strategy<Value = IpAddr> {
    let pool = [
        "169.254.169.254",
        "224.0.0.251",
        "10.0.0.255",
        "10.99.0.1",
        "8.8.8.8",
        "20.190.128.5",
        "20.190.129.6",
        "40.126.0.9",
        "2603:1006:2000::5",
        "2001:db8::1",
        "ff02::fb",
    ];
    let pool = pool.map(|text| text.parse::<IpAddr>().unwrap());
    prop_oneof![
        4 => (0..40_u8).prop_map(|last| IpAddr::from([198, 51, 100, last])),
        2 => proptest::sample::select(pool.to_vec()),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
    ]
}

fn flow() -> impl Strategy<Value = Flow> {
    let port = || prop_oneof![6 => proptest::sample::select(vec![53, 80, 443, 853, 8443]), 1 => any::<u16>()];
    prop_oneof![
        5 => port().prop_map(|port| (6, port)),
        3 => port().prop_map(|port| (17, port)),
        1 => proptest::sample::select(vec![(1, 0), (58, 0), (47, 0), (2, 0), (0, 0)]),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let label =
        proptest::sample::select(vec!["a", "b", "c", "d", "xn--bcher-kva", "_http", "true"]);
    let zone = proptest::sample::select(vec![
        "example.com",
        "b.example.com",
        "blob.core.windows.net",
        "co.uk",
        "evil.example",
        "local",
        "",
    ]);
    let usual = (vec(label, 0..4), zone)
        .prop_map(|(labels, zone)| wire(&format!("{}.{zone}", labels.join("."))));
    let hostile = vec(
        vec(
            prop_oneof![3 => 0..128_u8, 2 => Just(b'\n'), 1 => Just(b'*'), 1 => Just(b'"')],
            1..20,
        ),
        0..4,
    )
    .prop_map(|labels| {
        let wire = labels.into_iter().flat_map(|label| {
            let mut wire = vec![u8::try_from(label.len()).unwrap()];
            wire.extend(label.to_ascii_lowercase());
            wire
        });
        wire.collect()
    });
    prop_oneof![5 => usual, 1 => hostile]
}

prop_compose! {
    fn audit()(
        flows in vec((address(), flow(), 0..3_u64, any::<bool>(), ".*"), 0..60),
        names in vec((name(), address(), 0..3_u64), 0..30),
        questions in vec((name(), proptest::sample::select(vec![1, 28, 16, 65, 600]), any::<bool>()), 0..40),
        aliases in vec((0..40_usize, 0..40_usize), 0..6),
        lost in 0..2_u64,
    ) -> Audit {
        let asked: Vec<Asked> = questions
            .into_iter()
            .map(|(name, qtype, inside)| Asked { inside, ..super::asked(&name, qtype) })
            .collect();
        let mut named: Vec<Named> = names
            .into_iter()
            .map(|(name, address, first)| Named { first: DAY + first, ..super::named(&name, &address.to_string()) })
            .collect();
        for (from, to) in aliases {
            if let (Some(from), Some(to)) = (asked.get(from), asked.get(to)) {
                named.push(Named { target: Target::Alias(to.hash), ..super::named(&from.name, "192.0.2.1") });
            }
        }
        let wanted = flows.into_iter().map(|(address, (protocol, port), last, answers, user)| Wanted {
            answers,
            last: DAY + last,
            users: vec![user],
            ..super::wanted(&address.to_string(), protocol, port)
        });
        let mut wanted: Vec<Wanted> = wanted.collect();
        wanted.sort_by_key(|it| (it.address, it.protocol, it.port));
        wanted.dedup_by_key(|it| (it.address, it.protocol, it.port));
        Audit { auditing: true, wanted, asked, named, lost, ..Audit::default() }
    }
}

fn candidates<'a>(audit: &'a Audit, wanted: &'a Wanted) -> impl Iterator<Item = &'a [u8]> {
    let named = audit.named.iter().filter(|named| {
        named.target == Target::Address(wanted.address) && named.first <= wanted.last
    });
    named.map(|named| named.name.as_slice())
}

/// An alias for it is allowed, so that it may be asked for on that one's behalf, and what it
/// leads to used.
fn by_alias(audit: &Audit, outcome: &Outcome, name: &[u8], flow: Option<(IpAddr, Flow)>) -> bool {
    audit.named.iter().any(|named| {
        let image = &outcome.image;
        named.target == Target::Alias(hash(name))
            && image.judge_name(&named.name).is_some()
            && flow.is_none_or(|(address, (protocol, port))| {
                image
                    .judge_learned(address, protocol, port, &named.name)
                    .is_ok()
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_passes_by_the_suggestion_or_is_left_out_with_a_reason(
        audit in audit(),
        policy in proptest::sample::select(POLICIES.to_vec()),
    ) {
        let outcome = outcome(policy, &audit);
        prop_assert_eq!(outcome.policy.mode, Mode::Enforce);
        for wanted in audit.wanted.iter().filter(|wanted| !wanted.answers) {
            let &Wanted { address, protocol, port, .. } = wanted;
            let passes = outcome.image.judge_address(address, protocol, port).is_ok();
            if passes || outcome.leaves(address, (protocol, port)) {
                continue;
            }
            let mut writable = 0;
            for name in candidates(&audit, wanted) {
                let Ok(pattern) = dotted(name).parse() else { continue };
                if name_denied_by(&outcome.policy, &pattern).is_some() {
                    continue;
                }
                writable += 1;
                let flow = Some((address, (protocol, port)));
                prop_assert!(
                    outcome.image.judge_learned(address, protocol, port, name).is_ok()
                        || by_alias(&audit, &outcome, name, flow),
                    "{} for {:?}\n{}", dotted(name), wanted, outcome.text
                );
            }
            prop_assert!(writable > 0, "{:?}\n{}", wanted, outcome.text);
        }
        for asked in audit.asked.iter().filter(|asked| !asked.inside) {
            prop_assert!(
                outcome.may_ask(&asked.name, asked.qtype)
                    || outcome.leaves_name(&asked.name)
                    || by_alias(&audit, &outcome, &asked.name, None),
                "{} {}\n{}", dotted(&asked.name), asked.qtype, outcome.text
            );
        }
    }

    #[test]
    fn nothing_is_allowed_but_what_was_seen(
        audit in audit(),
        policy in proptest::sample::select(POLICIES.to_vec()),
        other in address(),
        (protocol, port) in flow(),
    ) {
        let in_force = parse(policy).unwrap();
        let before = in_force.rules.len();
        let outcome = outcome(policy, &audit);
        let seen = |address: IpAddr, flow: Flow| audit.wanted.iter().any(|wanted| {
            let version = |number| if number == 58 { 1 } else { number };
            wanted.address == address && (version(wanted.protocol), wanted.port) == (version(flow.0), flow.1)
        });
        for rule in &outcome.policy.rules[before..] {
            let Destination::Prefixes(prefixes) = &rule.destination else { continue };
            let covers = prefixes.iter().any(|prefix| prefix.contains(&other))
                && rule.traffic.iter().any(|traffic| traffic.covers(protocol, Some(port)));
            prop_assert!(!covers || seen(other, (protocol, port)), "{:?}\n{}", rule, outcome.text);
        }
    }

    /// Put into force, there is nothing more to be suggested.
    #[test]
    fn a_suggestion_is_its_own_end(
        audit in audit(),
        policy in proptest::sample::select(POLICIES.to_vec()),
    ) {
        let first = outcome(policy, &audit);
        let second = outcome(&first.text, &audit);
        prop_assert!(!second.suggestion.adds(), "{}\n{}", first.text, second.text);
        prop_assert_eq!(&second.policy.rules, &first.policy.rules);
        let third = outcome(&second.text, &audit);
        prop_assert_eq!(third.text, second.text);
    }
}
