//! Reading mappings key by key: what is unknown, missing or of the wrong shape is
//! reported with its place.

use std::borrow::Cow;

use super::error::{At, Problems};
use super::nearest::{did_you_mean, nearest};
use super::yaml::{Key, Node, Value, twice};

/// What a mapping may hold.
pub(crate) struct Shape {
    /// In a sentence: "a rule".
    pub(crate) what: &'static str,
    /// Of what would be right.
    pub(crate) example: &'static str,
    pub(crate) known: &'static [&'static str],
    /// Accepted, and not looked at.
    pub(crate) ignored: &'static [&'static str],
}

/// The known keys of a mapping.
pub(crate) struct Fields<'n, 'a> {
    what: &'static str,
    at: At,
    /// Key, its place, and its value.
    entries: Vec<(&'static str, At, &'n Node<'a>)>,
    /// Keys that are probably there, in a spelling that is reported already.
    misspelt: Vec<&'static str>,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// `None` where it is no mapping. Keys may be written in `camelCase`, which is how
    /// Azure's REST interface spells them.
    pub(crate) fn of(shape: &Shape, node: &'n Node<'a>, problems: &mut Problems) -> Option<Self> {
        let pairs = pairs(shape, node, problems)?;
        let mut fields = Self::empty(shape.what, node.at);
        fields.extend(shape, pairs, problems);
        Some(fields)
    }

    pub(crate) fn empty(what: &'static str, at: At) -> Self {
        Self {
            what,
            at,
            entries: Vec::new(),
            misspelt: Vec::new(),
        }
    }

    /// Takes in the keys of one more mapping, as if both were one.
    pub(crate) fn extend(
        &mut self,
        shape: &Shape,
        pairs: &'n [(Key<'a>, Node<'a>)],
        problems: &mut Problems,
    ) {
        for (key, node) in pairs {
            let snake = snake_case(&key.text);
            if shape.ignored.contains(&snake.as_ref()) {
                continue;
            }
            let Some(name) = shape.known.iter().copied().find(|name| *name == snake) else {
                self.unknown(shape, key, problems);
                continue;
            };
            match self.entries.iter().find(|(earlier, ..)| *earlier == name) {
                Some((_, earlier, _)) => problems.add(key.at, twice(name, *earlier)),
                None => self.entries.push((name, key.at, node)),
            }
        }
    }

    /// Takes in one key that stands elsewhere than in a mapping.
    pub(crate) fn put(&mut self, name: &'static str, node: &'n Node<'a>) {
        self.entries.push((name, node.at, node));
    }

    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// The keys that are there with a value, and where.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'static str, At)> {
        self.entries
            .iter()
            .filter(|(.., node)| !node.is_null())
            .map(|(name, at, _)| (*name, *at))
    }

    /// `None` also for a null, which is how Azure prints what is absent.
    pub(crate) fn get(&self, name: &'static str) -> Option<&'n Node<'a>> {
        self.entries
            .iter()
            .find(|(known, _, node)| *known == name && !node.is_null())
            .map(|(.., node)| *node)
    }

    /// `example` is a value that would be right.
    pub(crate) fn required(
        &self,
        name: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<&'n Node<'a>> {
        let found = self.get(name);
        if found.is_none() && !self.misspelt.contains(&name) {
            let what = self.what;
            problems.add(
                self.at,
                format!("{what} needs the key `{name}`; write `{name}: {example}`"),
            );
        }
        found
    }

    fn unknown(&mut self, shape: &Shape, key: &Key<'_>, problems: &mut Problems) {
        let (what, written) = (shape.what, &key.text);
        if problems.are_enough() {
            return problems.add(key.at, "");
        }
        let near = nearest(&snake_case(written), shape.known.iter().copied());
        let remedy = match near.first() {
            Some(near) => did_you_mean(&[near]),
            None => format!("; it has {}", shape.known.join(", ")),
        };
        problems.add(key.at, format!("{what} has no key `{written}`{remedy}"));
        let misspelt = shape.known.iter().find(|name| near.first() == Some(name));
        self.misspelt.extend(misspelt);
    }
}

/// The keys and values of a mapping, whatever the keys.
pub(crate) fn pairs<'n, 'a>(
    shape: &Shape,
    node: &'n Node<'a>,
    problems: &mut Problems,
) -> Option<&'n [(Key<'a>, Node<'a>)]> {
    let Value::Mapping(pairs) = &node.value else {
        let Shape { what, example, .. } = shape;
        let kind = node.kind();
        problems.add(
            node.at,
            format!("{what} is a mapping, this is {kind}; write for instance `{example}`"),
        );
        return None;
    };
    Some(pairs)
}

/// The text of a single value.
pub(crate) fn text<'n>(name: &str, node: &'n Node<'_>, problems: &mut Problems) -> Option<&'n str> {
    let Value::Scalar { text, .. } = &node.value else {
        let kind = node.kind();
        problems.add(
            node.at,
            format!("`{name}` is a single value, this is {kind}"),
        );
        return None;
    };
    Some(text)
}

/// The items of a list.
pub(crate) fn list<'n, 'a>(
    name: &str,
    node: &'n Node<'a>,
    problems: &mut Problems,
) -> &'n [Node<'a>] {
    if let Value::List(items) = &node.value {
        return items;
    }
    let remedy = match &node.value {
        Value::Scalar { text, .. } => format!("; write `{name}: [{}]`", text.trim()),
        Value::Mapping(_) | Value::List(_) => String::new(),
    };
    let kind = node.kind();
    problems.add(
        node.at,
        format!("`{name}` is a list, this is {kind}{remedy}"),
    );
    &[]
}

/// A word out of a few. Letter case, hyphens and underscores are free.
pub(crate) fn choice<T: Copy>(
    name: &str,
    node: &Node<'_>,
    choices: &[(&'static str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let written = text(name, node, problems)?;
    let found = choices
        .iter()
        .find(|(word, _)| folded(word).eq(folded(written)));
    if found.is_none() {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let words = either(&words);
        problems.add(
            node.at,
            format!("`{name}` cannot be `{written}`; it is {words}"),
        );
    }
    found.map(|(_, choice)| *choice)
}

/// A whole number of seconds from 0 to `max`.
pub(crate) fn seconds(
    name: &str,
    node: &Node<'_>,
    max: u32,
    problems: &mut Problems,
) -> Option<u32> {
    number(name, node, "seconds", 0..=max, problems)
}

/// A whole number in a range, of what `unit` says.
pub(crate) fn number(
    name: &str,
    node: &Node<'_>,
    unit: &str,
    range: std::ops::RangeInclusive<u32>,
    problems: &mut Problems,
) -> Option<u32> {
    let written = text(name, node, problems)?;
    let number = written.parse().ok().filter(|number| range.contains(number));
    if number.is_none() {
        let (least, most) = (range.start(), range.end());
        problems.add(
            node.at,
            format!(
                "`{name}` cannot be `{written}`; it is a number of {unit} from {least} to {most}"
            ),
        );
    }
    number
}

/// `a`, `a or b`, `a, b or c`.
fn either(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => {
            format!("`{}` or `{last}`", first.join("`, `"))
        }
        words => format!("`{}`", words.concat()),
    }
}

/// `portRanges` as `port_ranges`. What begins with a capital is no key in any spelling.
pub(crate) fn snake_case(written: &str) -> Cow<'_, str> {
    if written.starts_with(char::is_uppercase) || !written.contains(char::is_uppercase) {
        return written.into();
    }
    let mut snake = String::with_capacity(written.len() + 4);
    for character in written.chars() {
        if character.is_uppercase() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake.into()
}

fn folded(word: &str) -> impl Iterator<Item = char> {
    word.chars()
        .filter(|character| !matches!(character, '_' | '-'))
        .flat_map(char::to_lowercase)
}
