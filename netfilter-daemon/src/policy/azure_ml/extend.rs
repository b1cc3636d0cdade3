//! Adds to a policy file as a person would: in its place, and with all else as it was.

use std::borrow::Cow;

use crate::policy::error::{At, Problems};
use crate::policy::fields::snake_case;
use crate::policy::yaml::{self, Key, Node, Value, scalar};

use super::layout;

/// What is added. Texts are lines without indentation.
#[derive(Debug, Clone, Default)]
pub struct Extension {
    /// Each a comment or none, then an item of a list, from its `- ` on.
    pub rules: Vec<String>,
    /// Comments behind the rules.
    pub remarks: Vec<String>,
    /// All types of questions that are to be listed, if they change.
    pub query_types: Option<Vec<String>>,
}

const ENFORCE: &str = "allow_only_approved_outbound";

/// The policy with the additions, and enforced. `None` where it is written in a way that
/// cannot be added to. Whoever calls must read the result, for a line can mean something else
/// than it seems.
pub fn extended(text: &str, extension: &Extension) -> Option<String> {
    let document = yaml::read(text, &mut Problems::new(""))?;
    let Value::Mapping(top) = &document.value else {
        return None;
    };
    let nested = find(top, "managed_network");
    let settings = match nested {
        Some((
            _,
            Node {
                value: Value::Mapping(inner),
                ..
            },
        )) => inner,
        Some(_) => return None,
        None => top,
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut end = Vec::new();
    let rules = find(settings, "outbound_rules");
    // What comes later in the file first: so the places before it stay right.
    let mode = find(settings, "isolation_mode");
    let mode_is_behind =
        matches!((mode, rules), (Some((mode, _)), Some((rules, _))) if mode.at > rules.at);
    if mode_is_behind {
        enforce(&mut lines, mode)?;
    }
    match rules {
        Some((key, node)) => add_rules(&mut lines, key, node, extension)?,
        None if nested.is_some() => return None,
        None => {
            if !extension.rules.is_empty() || !extension.remarks.is_empty() {
                if !extension.rules.is_empty() {
                    end.push("outbound_rules:".to_owned());
                }
                end.extend(body(extension, 2));
            }
        }
    }
    if !mode_is_behind {
        enforce(&mut lines, mode)?;
    }
    if let Some(types) = &extension.query_types {
        if find(settings, "dns").is_some() || nested.is_some() {
            return None;
        }
        end.push("dns:".to_owned());
        end.push(format!("  query_types: [{}]", types.join(", ")));
    }
    lines.extend(end);
    Some(lines.join("\n") + "\n")
}

/// The same policy, with these types of questions if any, written so that it can be added to.
/// Its comments are lost.
pub fn rewritten(text: &str, query_types: Option<&[String]>) -> Option<String> {
    let mut problems = Problems::new("");
    let document = yaml::read(text, &mut problems)?;
    let settings = layout::settings(&document, &mut problems);
    let mut written = String::new();
    for name in layout::SETTINGS
        .iter()
        .filter(|name| **name != "outbound_rules")
    {
        match (settings.get(name), query_types) {
            (dns, Some(types)) if *name == "dns" => {
                written.push_str(&with_types(dns, types)?);
            }
            (Some(node), _) => written.push_str(&format!("{name}: {}\n", flow(node))),
            (None, _) => {}
        }
    }
    let rules = layout::rules(&settings, &mut problems);
    if !rules.is_empty() {
        written.push_str("outbound_rules:\n");
    }
    for (name, rule) in rules {
        let Value::Mapping(pairs) = &rule.value else {
            return None;
        };
        let mut begin = "  - ";
        let named = name.filter(|_| find(pairs, "name").is_none());
        let name = named.map(|key| ("name".to_owned(), scalar(&key.text).into_owned()));
        let pairs = pairs
            .iter()
            .map(|(key, node)| (scalar(&key.text).into_owned(), flow(node)));
        for (key, value) in name.into_iter().chain(pairs) {
            written.push_str(&format!("{begin}{key}: {value}\n"));
            begin = "    ";
        }
    }
    Some(written)
}

/// The `dns` block, of which all but the types stays.
fn with_types(dns: Option<&Node<'_>>, types: &[String]) -> Option<String> {
    let mut block = "dns:\n".to_owned();
    match dns.map(|dns| &dns.value) {
        Some(Value::Mapping(pairs)) => {
            let others = pairs
                .iter()
                .filter(|(key, _)| snake_case(&key.text) != "query_types");
            for (key, node) in others {
                block.push_str(&format!("  {}: {}\n", scalar(&key.text), flow(node)));
            }
        }
        Some(_) => return None,
        None => {}
    }
    Some(block + &format!("  query_types: [{}]\n", types.join(", ")))
}

fn find<'n, 'a>(
    pairs: &'n [(Key<'a>, Node<'a>)],
    name: &str,
) -> Option<(&'n Key<'a>, &'n Node<'a>)> {
    let found = pairs.iter().find(|(key, _)| snake_case(&key.text) == name);
    found.map(|(key, node)| (key, node))
}

fn body(extension: &Extension, indent: usize) -> impl Iterator<Item = String> {
    let all = extension.rules.iter().chain(&extension.remarks);
    all.flat_map(move |text| {
        text.lines().map(move |line| match line.is_empty() {
            true => String::new(),
            false => format!("{:indent$}{line}", ""),
        })
    })
}

fn enforce(lines: &mut [String], mode: Option<(&Key<'_>, &Node<'_>)>) -> Option<()> {
    let Some((
        _,
        Node {
            at,
            value: Value::Scalar { text, .. },
        },
    )) = mode
    else {
        return mode.is_none().then_some(()); // the default
    };
    if snake_case(text) == ENFORCE {
        return Some(());
    }
    let line = lines.get_mut(at.line - 1)?;
    let (before, behind) = split(line, *at)?;
    let rest = [format!("\"{text}\""), format!("'{text}'"), text.to_string()]
        .iter()
        .find_map(|written| behind.strip_prefix(written.as_str()))?
        .to_owned();
    *line = format!("{before}{ENFORCE}{rest}");
    Some(())
}

fn split(line: &str, at: At) -> Option<(&str, &str)> {
    let (byte, _) = line.char_indices().nth(at.column - 1)?;
    line.split_at_checked(byte)
}

fn add_rules(
    lines: &mut Vec<String>,
    key: &Key<'_>,
    node: &Node<'_>,
    extension: &Extension,
) -> Option<()> {
    let (behind, indent) = match &node.value {
        Value::List(items) => match (items.first(), items.last()) {
            (Some(first), Some(last)) => {
                let indent = dash(lines, first.at)?;
                (end_of(lines, last.at.line, indent), indent)
            }
            _ => {
                let line = lines.get_mut(node.at.line - 1)?;
                let (before, behind) = split(line, node.at)?;
                let rest = behind.strip_prefix("[]")?;
                *line = format!("{}{rest}", before.trim_end());
                (node.at.line, key.at.column + 1)
            }
        },
        Value::Scalar { text, .. } if node.is_null() && text.is_empty() => {
            (key.at.line, key.at.column + 1)
        }
        Value::Scalar { .. } | Value::Mapping(_) => return None,
    };
    lines.splice(behind..behind, body(extension, indent));
    Some(())
}

/// The column of the dash before an item.
fn dash(lines: &[String], at: At) -> Option<usize> {
    let (before, _) = split(lines.get(at.line - 1)?, at)?;
    let before = before.trim_end().strip_suffix('-')?;
    before
        .chars()
        .all(|letter| letter == ' ')
        .then_some(before.len())
}

/// The line behind the last one of an item that begins in a line (from 1).
fn end_of(lines: &[String], begins: usize, indent: usize) -> usize {
    let mut end = begins;
    for (index, line) in lines.iter().enumerate().skip(begins) {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if line.len() - content.len() <= indent {
            break;
        }
        end = index + 1;
    }
    end
}

fn flow(node: &Node<'_>) -> String {
    match &node.value {
        _ if node.is_null() => "null".to_owned(),
        // A number, where it was written as one.
        Value::Scalar { text, plain: true } if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.to_string()
        }
        Value::Scalar { text, .. } => scalar(text).into_owned(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(pairs) => {
            let pair = |(key, node): &(Key<'_>, Node<'_>)| -> String {
                let key: Cow<'_, str> = scalar(&key.text);
                format!("{key}: {}", flow(node))
            };
            let pairs: Vec<String> = pairs.iter().map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
