//! Reads where the fields of the kernel's structures are, from its own description of its
//! types (BTF; Documentation/bpf/btf.rst). No more of it than that.

/// Where a kernel describes itself.
pub(super) const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

// Kinds of types.
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// The types of a kernel. It has a hundred thousand, of which a handful is looked at.
pub(super) struct Types<'a> {
    text: &'a [u8],
    types: Vec<Type<'a>>,
}

#[derive(Default)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// The offsets of members hold their sizes, too.
    with_bits: bool,
    /// Three words each.
    members: &'a [u8],
}

impl<'a> Types<'a> {
    /// `None` where it is no BTF of this machine's byte order.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Reader(bytes);
        if header.half()? != MAGIC {
            return None;
        }
        header.half()?; // version and flags
        let length = header.word()? as usize;
        let (types_at, types_length) = (header.word()?, header.word()?);
        let (text_at, text_length) = (header.word()?, header.word()?);
        let section = |at: u32, size: u32| {
            let start = length.checked_add(at as usize)?;
            bytes.get(start..start.checked_add(size as usize)?)
        };
        let mut rest = Reader(section(types_at, types_length)?);
        // Numbers begin at one.
        let mut types = vec![Type::default()];
        while !rest.0.is_empty() {
            let (name, info) = (rest.word()?, rest.word()?);
            rest.word()?; // size or type
            let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
            let behind = rest.take(4 * words_behind(kind, count as usize)?)?;
            types.push(Type {
                name,
                kind,
                with_bits: info >> 31 == 1,
                members: match kind {
                    STRUCT | UNION => behind,
                    _ => &[],
                },
            });
        }
        Some(Self {
            text: section(text_at, text_length)?,
            types,
        })
    }

    /// The offset of a field in a structure, also if it is in a part without a name. The
    /// first of these names that it has.
    pub(super) fn offset(&self, structure: &str, names: &[&str]) -> Option<u32> {
        let of = |each: &&Type<'_>| each.kind == STRUCT && self.is(each.name, structure);
        let of = self.types.iter().find(of)?;
        names.iter().find_map(|name| self.find(of, name, 0))
    }

    fn find(&self, of: &Type<'_>, name: &str, depth: u32) -> Option<u32> {
        let mut rest = Reader(of.members);
        while let (Some(called), Some(kind), Some(place)) = (rest.word(), rest.word(), rest.word())
        {
            let (bits, size) = match of.with_bits {
                true => (place & 0xff_ffff, place >> 24),
                false => (place, 0),
            };
            let offset = (size == 0 && bits % 8 == 0).then_some(bits / 8);
            if self.is(called, name) {
                return offset;
            }
            if self.is(called, "")
                && depth < DEEPEST
                && let Some(part) = self.types.get(kind as usize)
                && let Some(within) = self.find(part, name, depth + 1)
            {
                return offset?.checked_add(within);
            }
        }
        None
    }

    fn is(&self, at: u32, name: &str) -> bool {
        let text = self.text.get(at as usize..).unwrap_or_default();
        let rest = text.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Parts without a name that are in one another.
const DEEPEST: u32 = 8;

/// Words that follow a type of this kind. `None` for one of a newer kernel.
fn words_behind(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 1,
        // ARRAY
        3 => 3,
        STRUCT | UNION => 3 * count,
        // ENUM, FUNC_PROTO
        6 | 13 => 2 * count,
        // DATASEC, ENUM64
        15 | 19 => 3 * count,
        _ => return None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn half(&mut self) -> Option<u16> {
        let (half, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_ne_bytes(*half))
    }

    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { u32 plain; struct inner nested; union { u32 one; u32 other:8; }; }`, as
    /// words, and its names.
    fn described() -> Vec<u8> {
        let text = b"\0u32\0outer\0plain\0nested\0one\0other\0inner\0deep\0";
        let at = |name: &str| {
            let name = format!("\0{name}\0");
            let found = text
                .windows(name.len())
                .position(|part| part == name.as_bytes());
            u32::try_from(found.unwrap()).unwrap() + 1
        };
        let words: Vec<u32> = [
            vec![at("u32"), 1 << 24, 4, 32],
            vec![at("inner"), 4 << 24 | 1, 4, at("deep"), 1, 0],
            // The bits of fields are told apart here.
            vec![
                0,
                1 << 31 | 5 << 24 | 2,
                4,
                at("one"),
                1,
                0,
                at("other"),
                1,
                8 << 24,
            ],
            vec![at("outer"), 4 << 24 | 3, 12],
            vec![at("plain"), 1, 0, at("nested"), 2, 32, 0, 3, 64],
        ]
        .concat();
        let size = |length: usize| u32::try_from(length).unwrap().to_ne_bytes();
        [
            &MAGIC.to_ne_bytes()[..],
            &[1, 0],
            &size(24),
            &size(0),
            &size(words.len() * 4),
            &size(words.len() * 4),
            &size(text.len()),
            &words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<u8>>(),
            text,
        ]
        .concat()
    }

    #[test]
    fn fields_are_found_also_in_parts_without_a_name() {
        let described = described();
        let types = Types::parse(&described).unwrap();
        let offset = |name| types.offset("outer", &[name]);
        assert_eq!(offset("plain"), Some(0));
        assert_eq!(offset("nested"), Some(4));
        assert_eq!(offset("one"), Some(8));
        assert_eq!(offset("deep"), None, "that part has a name");
        assert_eq!(offset("other"), None, "bits have no place");
        assert_eq!(types.offset("outer", &["missing", "one"]), Some(8));
        assert_eq!(types.offset("missing", &["one"]), None);
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_none() {
        let whole = described();
        for length in 0..whole.len() {
            assert!(Types::parse(&whole[..length]).is_none(), "{length}");
        }
        assert!(Types::parse(&[&[0], &whole[1..]].concat()).is_none());
    }
}
