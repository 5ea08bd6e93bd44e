//! Where the members of a kernel structure lie, as BTF tells it: of the kernel, or of a module on top of it.
//!
//! Owns the reading of BTF as far as it takes to find a member by its name (Documentation/bpf/btf.rst). Must not know
//! what the members mean. aya reads BTF for relocations but shows no members, and no BTF of modules.

use std::ops::Range;

/// Where an unsigned integer lies in a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    /// Distance from the structure's begin.
    pub(crate) offset_bits: u32,
    /// 1 to 64.
    pub(crate) size_bits: u32,
}

/// The types of a kernel, or of a module with those of the kernel that they refer to.
pub(crate) struct Types<'a> {
    base: Part<'a>,
    module: Option<Part<'a>>,
}

/// What one BTF blob adds.
struct Part<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`; the first one has the number `first_id`.
    starts: Vec<u32>,
    first_id: u32,
    first_string: u32,
}

/// `struct btf_type` with what follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    size_or_type: u32,
    data: &'a [u8],
}

/// Kinds of types (`BTF_KIND_*` of include/uapi/linux/btf.h).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

const MAGIC: u32 = 0xeb9f;
/// `sizeof(struct btf_header)`.
const HEADER_BYTES: usize = 24;
/// `sizeof(struct btf_type)`.
const TYPE_BYTES: usize = 12;
/// `sizeof(struct btf_member)`.
const MEMBER_BYTES: usize = 12;
/// Types within types: more than any structure of the kernel has.
const MAX_DEPTH: u32 = 16;

impl<'a> Types<'a> {
    /// Takes the kernel's BTF apart, and a module's, if there is one. `None` where a blob is no BTF.
    pub(crate) fn read(kernel: &'a [u8], module: Option<&'a [u8]>) -> Option<Types<'a>> {
        // 0 is void
        let base = Part::read(kernel, 1, 0)?;
        let next = base.first_id + u32::try_from(base.starts.len()).ok()?;
        let strings = u32::try_from(base.strings.len()).ok()?;
        let module = match module {
            Some(blob) => Some(Part::read(blob, next, strings)?),
            None => None,
        };
        Some(Types { base, module })
    }

    /// Where the integer at the end of `path` lies in a structure of the module, or of the kernel where there is no
    /// module. An array stands for its first element. `None` where the structure is not described, does not have such
    /// a member, or it is no integer of at most 64 bits.
    pub(crate) fn integer(&self, structure: &str, path: &[&str]) -> Option<Bits> {
        let own = self.module.as_ref().unwrap_or(&self.base);
        let found =
            own.types().find(|t| t.kind() == kind::STRUCT && self.name(t.name) == Some(structure.as_bytes()))?;
        self.descend(found, 0, path, 0)
    }

    fn descend(&self, within: Type<'_>, offset_bits: u32, path: &[&str], depth: u32) -> Option<Bits> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (first, rest) = path.split_first()?;
        for member in within.data.chunks_exact(MEMBER_BYTES) {
            let (name, type_id, at) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            // bit 31 of info: the upper 8 bits of an offset are the size of a bit field
            let (at, field_bits) = if within.info >> 31 == 1 { (at & 0xff_ffff, at >> 24) } else { (at, 0) };
            let offset_bits = offset_bits.checked_add(at)?;
            let of = self.plain(type_id, 0)?;
            let name = self.name(name)?;
            if name == first.as_bytes() {
                return match rest {
                    [] => self.as_integer(of, offset_bits, field_bits),
                    _ if of.is_compound() => self.descend(of, offset_bits, rest, depth + 1),
                    _ => None,
                };
            }
            if name.is_empty()
                && of.is_compound()
                && let Some(found) = self.descend(of, offset_bits, path, depth + 1)
            {
                return Some(found);
            }
        }
        None
    }

    fn as_integer(&self, of: Type<'_>, offset_bits: u32, field_bits: u32) -> Option<Bits> {
        let size_bits = match (of.kind(), field_bits) {
            (kind::INT | kind::ENUM | kind::ENUM64, 0) => of.size_or_type.checked_mul(8)?,
            (kind::INT | kind::ENUM | kind::ENUM64, bits) => bits,
            _ => return None,
        };
        if of.kind() != kind::INT || field_bits != 0 {
            return (1..=64).contains(&size_bits).then_some(Bits { offset_bits, size_bits });
        }
        // an integer has its own idea of where in its bytes it lies: encoding, offset, 0, bits
        let own = word(of.data, 0)?;
        let offset_bits = offset_bits.checked_add(own >> 16 & 0xff)?;
        let size_bits = own & 0xff;
        (1..=64).contains(&size_bits).then_some(Bits { offset_bits, size_bits })
    }

    /// A type without typedefs, qualifiers, and arrays around it.
    fn plain(&self, id: u32, depth: u32) -> Option<Type<'a>> {
        let found = match &self.module {
            Some(module) if id >= module.first_id => module.get(id)?,
            _ => self.base.get(id)?,
        };
        let inner = match found.kind() {
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => found.size_or_type,
            kind::ARRAY => word(found.data, 0)?,
            _ => return Some(found),
        };
        if depth < MAX_DEPTH { self.plain(inner, depth + 1) } else { None }
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let part = match &self.module {
            Some(module) if offset >= module.first_string => module,
            _ => &self.base,
        };
        let from = part.strings.get((offset - part.first_string) as usize..)?;
        from.split(|&b| b == 0).next()
    }
}

impl<'a> Part<'a> {
    fn read(blob: &'a [u8], first_id: u32, first_string: u32) -> Option<Part<'a>> {
        if word(blob, 0)? & 0xffff != MAGIC {
            return None;
        }
        let section = |offset_at, len_at| -> Option<&'a [u8]> {
            let start = (word(blob, 4)? as usize).max(HEADER_BYTES).checked_add(word(blob, offset_at)? as usize)?;
            blob.get(Range { start, end: start.checked_add(word(blob, len_at)? as usize)? })
        };
        let (types, strings) = (section(8, 12)?, section(16, 20)?);
        let mut part = Part { types, strings, starts: Vec::new(), first_id, first_string };
        let mut at = 0;
        while at < types.len() {
            let bytes = TYPE_BYTES + part.at(at)?.data.len();
            part.starts.push(u32::try_from(at).ok()?);
            at += bytes;
        }
        Some(part)
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let start = *self.starts.get(id.checked_sub(self.first_id)? as usize)?;
        self.at(start as usize)
    }

    fn types(&self) -> impl Iterator<Item = Type<'a>> {
        self.starts.iter().filter_map(|&start| self.at(start as usize))
    }

    fn at(&self, start: usize) -> Option<Type<'a>> {
        let from = self.types.get(start..)?;
        let info = word(from, 4)?;
        let count = (info & 0xffff) as usize;
        let bytes = match info >> 24 & 0x1f {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
            kind::ENUM | kind::FUNC_PROTO => 8 * count,
            0..=kind::ENUM64 => 0,
            // a kind of which nothing is known, not even its size
            _ => return None,
        };
        let data = from.get(TYPE_BYTES..TYPE_BYTES + bytes)?;
        Some(Type { name: word(from, 0)?, info, size_or_type: word(from, 8)?, data })
    }
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn is_compound(&self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }
}

/// The kernel writes BTF in its own byte order; the programs are for little-endian machines alone.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod testing {
    //! BTF as the tests need it.

    use super::{MAGIC, kind};

    /// Writes BTF, type by type.
    pub(crate) struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
        next_id: u32,
        first_string: u32,
    }

    impl Writer {
        pub(crate) fn kernel() -> Writer {
            Writer { types: Vec::new(), strings: vec![0], next_id: 1, first_string: 0 }
        }

        /// A module's, on top of a kernel's.
        pub(crate) fn module(kernel: &Writer) -> Writer {
            let first_string = kernel.first_string + kernel.strings.len() as u32;
            Writer { types: Vec::new(), strings: Vec::new(), next_id: kernel.next_id, first_string }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.first_string + self.strings.len() as u32;
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        fn add(&mut self, words: &[u32]) -> u32 {
            self.types.extend(words.iter().flat_map(|w| w.to_le_bytes()));
            self.next_id += 1;
            self.next_id - 1
        }

        pub(crate) fn int(&mut self, name: &str, bits: u32) -> u32 {
            let name = self.name(name);
            self.add(&[name, kind::INT << 24, bits.div_ceil(8), bits])
        }

        pub(crate) fn typedef(&mut self, name: &str, of: u32) -> u32 {
            let name = self.name(name);
            self.add(&[name, kind::TYPEDEF << 24, of])
        }

        pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
            self.add(&[0, kind::ARRAY << 24, 0, of, of, count])
        }

        /// Members: name, type, offset in bits, size in bits where it is a bit field (0 where not).
        pub(crate) fn structure(&mut self, name: &str, size_bytes: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
            let name = self.name(name);
            let mut words = vec![name, 1 << 31 | kind::STRUCT << 24 | members.len() as u32, size_bytes];
            for &(member, of, offset_bits, field_bits) in members {
                let member = self.name(member);
                words.extend([member, of, field_bits << 24 | offset_bits]);
            }
            self.add(&words)
        }

        pub(crate) fn blob(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let header = [MAGIC | 1 << 16, 24, 0, types, types, strings];
            let mut blob: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
            blob.extend(&self.types);
            blob.extend(&self.strings);
            blob
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Writer;
    use super::*;

    /// `struct inner { u32 t; u32 v; }`, `struct outer { u64; u8 a:3, b:7; struct { u32 hidden; }; struct inner s[3]; }`.
    fn kernel() -> Writer {
        let mut w = Writer::kernel();
        let int = w.int("unsigned int", 32);
        let u32_ = w.typedef("u32", int);
        let long = w.int("unsigned long", 64);
        let inner = w.structure("inner", 8, &[("t", u32_, 0, 0), ("v", u32_, 32, 0)]);
        let inners = w.array(inner, 3);
        let unnamed = w.structure("", 4, &[("hidden", u32_, 0, 0)]);
        w.structure(
            "outer",
            40,
            &[("head", long, 0, 0), ("a", int, 64, 3), ("b", int, 67, 7), ("", unnamed, 96, 0), ("s", inners, 128, 0)],
        );
        w
    }

    fn bits(offset_bits: u32, size_bits: u32) -> Option<Bits> {
        Some(Bits { offset_bits, size_bits })
    }

    #[test]
    fn members_by_name() {
        let blob = kernel().blob();
        let types = Types::read(&blob, None).unwrap();
        assert_eq!(types.integer("outer", &["head"]), bits(0, 64));
        assert_eq!(types.integer("outer", &["a"]), bits(64, 3));
        assert_eq!(types.integer("outer", &["b"]), bits(67, 7));
        assert_eq!(types.integer("outer", &["hidden"]), bits(96, 32), "in a structure without a name");
        assert_eq!(types.integer("outer", &["s", "v"]), bits(128 + 32, 32), "of the first element");
    }

    #[test]
    fn what_is_not_there_or_no_integer_is_none() {
        let blob = kernel().blob();
        let types = Types::read(&blob, None).unwrap();
        assert_eq!(types.integer("other", &["a"]), None);
        assert_eq!(types.integer("outer", &["c"]), None);
        assert_eq!(types.integer("outer", &["s"]), None, "an array of structures");
        assert_eq!(types.integer("outer", &["a", "v"]), None, "nothing lies within an integer");
        assert_eq!(types.integer("outer", &[]), None);
    }

    #[test]
    fn a_module_stands_on_the_kernel() {
        let kernel = kernel();
        let mut module = Writer::module(&kernel);
        // types 2 and 4 are the kernel's u32 and struct inner
        module.structure("mine", 12, &[("x", 2, 0, 0), ("of_kernel", 4, 32, 0)]);
        let (kernel, module) = (kernel.blob(), module.blob());
        let types = Types::read(&kernel, Some(&module)).unwrap();
        assert_eq!(types.integer("mine", &["x"]), bits(0, 32));
        assert_eq!(types.integer("mine", &["of_kernel", "v"]), bits(64, 32));
        assert_eq!(types.integer("outer", &["head"]), None, "the kernel's structure is not the module's");
    }

    #[test]
    fn damage_is_none() {
        let kernel = kernel();
        let whole = kernel.blob();
        for len in 0..whole.len() {
            // a blob cut anywhere: its header promises more than there is
            assert!(Types::read(&whole[..len], None).is_none(), "{len}");
        }
        let mut unknown_kind = whole.clone();
        unknown_kind[24 + 7] = 0x1f;
        assert!(Types::read(&unknown_kind, None).is_none());
        assert!(Types::read(b"", None).is_none());
    }

    #[test]
    fn types_that_go_round_end() {
        let mut w = Writer::kernel();
        let to_itself = w.typedef("loop", 1);
        w.structure("outer", 8, &[("a", to_itself, 0, 0)]);
        let mut nested = Writer::kernel();
        nested.structure("", 8, &[("", 1, 0, 0)]);
        nested.structure("outer", 8, &[("", 1, 0, 0)]);
        for writer in [w, nested] {
            let blob = writer.blob();
            assert_eq!(Types::read(&blob, None).unwrap().integer("outer", &["a"]), None);
        }
    }
}
