//! YAML with the place of every node. The one module that knows the YAML parser.
//!
//! Scalars stay the text that was written, for `8000` as a rule's name and `1.20` as
//! a value are not numbers. Anchors and aliases are followed; tags have no use here.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::error::{At, Problems};

mod syntax;

/// A policy needs five levels.
const DEPTH_MAX: usize = 32;
/// Aliases can multiply: nine lines of them make a billion nodes. Anchors can too, for
/// what stands in several is kept several times.
const ALIASED_MAX: usize = 100_000;
/// Four times what a policy of as many rules as there may be has.
const NODES_MAX: usize = 4_000_000;
/// So many bytes of text count as a node more.
const NODE_BYTES: usize = 64;
/// Up to so many keys are compared one by one, which takes less than a table of them.
const FEW_KEYS: usize = 16;
/// Stands for a key that is none; YAML text cannot hold the character.
const NO_KEY: &str = "\0";

#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) at: At,
    pub(crate) value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Scalar { text: Cow<'a, str>, plain: bool },
    List(Vec<Node<'a>>),
    Mapping(Vec<(Key<'a>, Node<'a>)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key<'a> {
    pub(crate) at: At,
    pub(crate) text: Cow<'a, str>,
}

/// Reads the one document of the text. What is wrong goes to `problems`; a node is
/// there if what is wrong leaves something to look at.
pub(crate) fn read<'a>(text: &'a str, problems: &mut Problems) -> Option<Node<'a>> {
    let mut parser = Parser::new_from_str(text);
    let mut reader = Reader::new(problems);
    loop {
        match parser.next_event()? {
            Ok((Event::StreamEnd, _)) => return reader.document,
            Ok((event, span)) => reader.take(event, at(&span.start))?,
            Err(error) => {
                let at = at(error.marker());
                let line = text.lines().nth(at.line - 1).unwrap_or_default();
                problems.add(at, syntax::message(error.info(), line));
                return None;
            }
        }
    }
}

/// Text as a scalar that reads back as it, and that nobody takes for a number, a truth or
/// null, in flow style too.
pub(crate) fn scalar(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"._-/".contains(&letter);
    let is_word = || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(plain)
        && !is_word()
        || text.parse::<ipnet::Ipv4Net>().is_ok()
    {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ if letter.is_alphanumeric() => quoted.push(letter),
            _ => quoted.push_str(&format!("\\U{:08X}", u32::from(letter))),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

impl Node<'_> {
    /// What an empty file holds.
    pub(crate) fn nothing() -> Self {
        Self {
            at: At::START,
            value: Value::Scalar {
                text: Cow::Borrowed(""),
                plain: true,
            },
        }
    }

    /// `null`, `~`, or nothing at all.
    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                *plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::List(_) | Value::Mapping(_) => false,
        }
    }

    /// What the node is, in a sentence.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// Nodes in it, itself included, and what its text takes.
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { text, .. } => text.len() / NODE_BYTES,
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Mapping(entries) => entries.iter().map(|(_, node)| node.size()).sum(),
        }
    }
}

/// A collection that is not complete yet.
struct Open<'a> {
    at: At,
    anchor: usize,
    collection: Collection<'a>,
}

enum Collection<'a> {
    List(Vec<Node<'a>>),
    Mapping {
        entries: Vec<(Key<'a>, Node<'a>)>,
        /// Where each key was first, to find it again where there are many.
        first: HashMap<Cow<'a, str>, At>,
        key: Option<Key<'a>>,
    },
}

struct Reader<'a, 'p> {
    problems: &'p mut Problems,
    open: Vec<Open<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    nodes: usize,
    anchored: usize,
    aliased: usize,
    document: Option<Node<'a>>,
}

impl<'a, 'p> Reader<'a, 'p> {
    fn new(problems: &'p mut Problems) -> Self {
        Self {
            problems,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            anchored: 0,
            aliased: 0,
            document: None,
        }
    }

    /// `None` where reading on makes no sense.
    fn take(&mut self, event: Event<'a>, at: At) -> Option<()> {
        match event {
            Event::DocumentStart(_) if self.document.is_some() => {
                self.problems.add(
                    at,
                    "a second YAML document starts here; a policy is one document, remove the \
                     `---`",
                );
                return None;
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                let plain = style == ScalarStyle::Plain;
                let value = Value::Scalar { text, plain };
                return self.place(Node { at, value }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                return self.descend(at, anchor, Collection::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                let mapping = Collection::Mapping {
                    entries: Vec::new(),
                    first: HashMap::new(),
                    key: None,
                };
                return self.descend(at, anchor, mapping);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open {
                    at,
                    anchor,
                    collection,
                } = self.open.pop()?;
                let value = match collection {
                    Collection::List(items) => Value::List(items),
                    Collection::Mapping { entries, .. } => Value::Mapping(entries),
                };
                return self.place(Node { at, value }, anchor);
            }
            Event::Alias(anchor) => return self.follow(anchor, at),
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => {}
        }
        Some(())
    }

    fn descend(&mut self, at: At, anchor: usize, collection: Collection<'a>) -> Option<()> {
        if self.open.len() >= DEPTH_MAX {
            self.problems.add(
                at,
                format!("nested more than {DEPTH_MAX} levels deep; a policy needs five"),
            );
            return None;
        }
        self.open.push(Open {
            at,
            anchor,
            collection,
        });
        Some(())
    }

    fn follow(&mut self, anchor: usize, at: At) -> Option<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.problems.add(
                at,
                "this alias stands inside of what it stands for; write the value itself",
            );
            return None;
        };
        self.aliased += node.size();
        if self.aliased > ALIASED_MAX {
            self.problems.add(
                at,
                format!(
                    "the aliases stand for more than {ALIASED_MAX} nodes; write the values \
                     themselves"
                ),
            );
            return None;
        }
        let value = node.value.clone();
        self.place(Node { at, value }, 0)
    }

    /// Puts a complete node where it belongs. `None` where reading on makes no sense.
    fn place(&mut self, node: Node<'a>, anchor: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.problems.add(
                node.at,
                format!("the file has more than {NODES_MAX} values; is it the right file?"),
            );
            return None;
        }
        if anchor != 0 {
            self.anchored += node.size();
            if self.anchored > ALIASED_MAX {
                self.problems.add(
                    node.at,
                    format!(
                        "the anchors stand for more than {ALIASED_MAX} nodes; write the values \
                         themselves"
                    ),
                );
                return None;
            }
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.document = Some(node);
            return Some(());
        };
        match &mut parent.collection {
            Collection::List(items) => items.push(node),
            Collection::Mapping {
                entries,
                first,
                key,
            } => match key.take() {
                None => *key = Some(key_of(node, self.problems)),
                // Its problem is reported already.
                Some(key) if key.text == NO_KEY => {}
                Some(key) => match place_of(&key.text, entries, first) {
                    None => {
                        if entries.len() == FEW_KEYS {
                            let few = entries.iter().map(|(key, _)| (key.text.clone(), key.at));
                            first.extend(few);
                        }
                        if entries.len() >= FEW_KEYS {
                            first.insert(key.text.clone(), key.at);
                        }
                        entries.push((key, node));
                    }
                    Some(earlier) => self.problems.add(key.at, twice(&key.text, earlier)),
                },
            },
        }
        Some(())
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: At) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.problems.add(
                at,
                format!("the YAML tag `{tag}` means nothing in a policy; remove it"),
            );
        }
    }
}

/// Where the key stands already.
fn place_of(
    text: &str,
    entries: &[(Key<'_>, Node<'_>)],
    first: &HashMap<Cow<'_, str>, At>,
) -> Option<At> {
    if entries.len() > FEW_KEYS {
        return first.get(text).copied();
    }
    let mut keys = entries.iter().map(|(key, _)| key);
    keys.find(|key| key.text == text).map(|key| key.at)
}

pub(crate) fn twice(key: &str, earlier: At) -> String {
    format!(
        "the key `{key}` is here twice, first in line {}; remove one",
        earlier.line
    )
}

fn key_of<'a>(node: Node<'a>, problems: &mut Problems) -> Key<'a> {
    let at = node.at;
    match node.value {
        Value::Scalar { text, .. } => Key { at, text },
        Value::List(_) | Value::Mapping(_) => {
            problems.add(
                at,
                "a key is a single word here; quote it, if it is to start with [ or {",
            );
            Key {
                at,
                text: NO_KEY.into(),
            }
        }
    }
}

fn at(marker: &Marker) -> At {
    At {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

#[cfg(test)]
mod tests;
