use proptest::prelude::*;

use super::*;

fn read_all(text: &str) -> (Option<Node<'_>>, Vec<String>) {
    let mut problems = Problems::new("f");
    let node = read(text, &mut problems);
    let told = problems.finish().err().map(|error| error.to_string());
    (
        node,
        told.iter()
            .flat_map(|told| told.lines().map(str::to_owned))
            .collect(),
    )
}

/// The tree, in a form that shows where each node is.
fn drawn(node: &Node<'_>) -> String {
    let At { line, column } = node.at;
    match &node.value {
        Value::Scalar { text, .. } => format!("{text}@{line}:{column}"),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(drawn).collect();
            format!("[{}]@{line}:{column}", items.join(" "))
        }
        Value::Mapping(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, node)| {
                    format!(
                        "{}@{}:{}={}",
                        key.text,
                        key.at.line,
                        key.at.column,
                        drawn(node)
                    )
                })
                .collect();
            format!("{{{}}}@{line}:{column}", entries.join(" "))
        }
    }
}

fn tree(text: &str) -> String {
    let (node, problems) = read_all(text);
    assert_eq!(problems, Vec::<String>::new());
    drawn(&node.unwrap())
}

#[test]
fn every_node_has_its_place_counted_from_one() {
    assert_eq!(
        tree("a: b\nc:\n  - d\n  - {e: f}\n"),
        "{a@1:1=b@1:4 c@2:1=[d@3:5 {e@4:6=f@4:9}@4:5]@3:3}@1:1"
    );
}

#[test]
fn columns_count_characters_not_bytes() {
    assert_eq!(tree("é: ü\n"), "{é@1:1=ü@1:4}@1:1");
}

#[test]
fn a_byte_order_mark_takes_no_column() {
    assert_eq!(tree("\u{feff}a: b\n"), "{a@1:1=b@1:4}@1:1");
}

#[test]
fn windows_line_ends_are_line_ends() {
    assert_eq!(tree("a: b\r\nc: d\r\n"), "{a@1:1=b@1:4 c@2:1=d@2:4}@1:1");
}

#[test]
fn json_is_yaml() {
    assert_eq!(
        tree("{\"a\": [1, null]}"),
        "{a@1:2=[1@1:8 null@1:11]@1:7}@1:1"
    );
}

#[test]
fn only_what_is_not_quoted_is_null() {
    let null = |text: &str| read_all(text).0.unwrap().is_null();
    assert!(null("~") && null("null"));
    assert!(!null("\"\"") && !null("'null'") && !null("no"));
}

#[test]
fn scalars_stay_as_they_are_written() {
    assert_eq!(
        tree("[007, 1.20, 0x50, yes, 22:22]"),
        "[007@1:2 1.20@1:7 0x50@1:13 yes@1:19 22:22@1:24]@1:1"
    );
}

#[test]
fn an_alias_is_what_it_stands_for_at_its_own_place() {
    assert_eq!(
        tree("a: &x [b]\nc: *x\n"),
        "{a@1:1=[b@1:8]@1:4 c@2:1=[b@1:8]@2:4}@1:1"
    );
}

#[test]
fn aliases_within_bounds_are_followed_and_beyond_are_not() {
    let aliased = |times: usize| format!("a: &x [b, b, b]\nc: [{}]", "*x,".repeat(times));
    assert!(read_all(&aliased(ALIASED_MAX / 4)).1.is_empty());
    assert!(read_all(&aliased(ALIASED_MAX / 4 + 1)).1[0].contains("the aliases stand for more"));
}

#[test]
fn nesting_within_bounds_is_read_and_beyond_is_not() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read_all(&nested(DEPTH_MAX)).1.is_empty());
    assert!(read_all(&nested(DEPTH_MAX + 1)).1[0].contains("nested more than 32 levels deep"));
    let told = read_all(&"[".repeat(1_000_000)).1;
    assert!(told[0].contains("deep"), "{told:?}");
}

#[test]
fn the_first_of_two_equal_keys_counts_and_the_second_is_reported() {
    let (node, problems) = read_all("a: 1\nb: 2\n\"a\": 3\n");
    assert_eq!(drawn(&node.unwrap()), "{a@1:1=1@1:4 b@2:1=2@2:4}@1:1");
    assert_eq!(
        problems,
        ["f:3:1: the key `a` is here twice, first in line 1; remove one"]
    );
}

#[test]
fn an_empty_text_is_no_node_and_no_problem() {
    assert!(matches!(read_all("# nothing\n"), (None, problems) if problems.is_empty()));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-\\[\\]{}:,&*!|>'\"#%@ \n\ta-c0]{0,60}") {
        let (node, problems) = read_all(&text);
        prop_assert!(node.is_some() || node.is_none() || !problems.is_empty());
    }
}

#[test]
fn anchors_within_bounds_are_kept_and_beyond_are_not() {
    let anchored = |times: usize| format!("&a [&b [{}]]", "x,".repeat(times));
    assert!(read_all(&anchored(ALIASED_MAX / 2 - 2)).1.is_empty());
    let told = read_all(&anchored(ALIASED_MAX / 2 + 1)).1;
    assert!(told[0].contains("the anchors stand for more"), "{told:?}");
}

#[test]
fn long_text_counts_as_many_nodes() {
    let aliased = |bytes: usize| format!("a: &x '{}'\nb: [*x, *x]", "t".repeat(bytes));
    assert!(
        read_all(&aliased(NODE_BYTES * ALIASED_MAX / 4))
            .1
            .is_empty()
    );
    let told = read_all(&aliased(NODE_BYTES * ALIASED_MAX * 3 / 4)).1;
    assert!(told[0].contains("the aliases stand for more"), "{told:?}");
}
