//! The smallest shared object that a loader takes for a library: a SONAME, a symbol, and nothing to run.
//!
//! After the System V ABI's "Object Files" and the two processor supplements. No section headers: glibc's loader and
//! ldconfig read program headers only.

/// For which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// aarch64.
    Aarch64,
    /// 32-bit x86.
    I386,
}

impl Machine {
    /// The one that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    fn number(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
            Self::I386 => 3,
        }
    }

    fn wide(self) -> bool {
        self != Self::I386
    }
}

/// The symbol that each of them defines, with the value [`VALUE`].
pub const SYMBOL: &str = "berth_simnode_stub";

/// Value of [`SYMBOL`]; it is absolute.
pub const VALUE: u64 = 0x5eed;

const PAGE: u64 = 0x10000;
// NEEDED, SONAME, HASH, STRTAB, SYMTAB, STRSZ, SYMENT
const DYNAMIC: [u64; 7] = [1, 14, 4, 5, 6, 10, 11];
/// What every driver library needs; ldconfig takes a 32-bit one without it for a relic.
const NEEDED: &str = "libc.so.6";

/// Bytes in the order of the machine's word size.
struct Writer {
    bytes: Vec<u8>,
    wide: bool,
}

impl Writer {
    fn half(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    /// An address, an offset or a size.
    fn native(&mut self, value: u64) {
        if self.wide {
            self.bytes.extend(value.to_le_bytes());
        } else {
            self.word(u32::try_from(value).unwrap_or(u32::MAX));
        }
    }

    fn segment(&mut self, kind: u32, flags: u32, offset: u64, size: u64, align: u64) {
        self.word(kind);
        if self.wide {
            self.word(flags);
        }
        for value in [offset, offset, offset, size, size] {
            self.native(value);
        }
        if !self.wide {
            self.word(flags);
        }
        self.native(align);
    }

    fn symbol(&mut self, name: u32, info: u8, section: u16, value: u64) {
        self.word(name);
        if self.wide {
            self.bytes.extend([info, 0]);
            self.half(section);
            self.native(value);
            self.native(0);
        } else {
            self.native(value);
            self.native(0);
            self.bytes.extend([info, 0]);
            self.half(section);
        }
    }
}

/// A shared object with this SONAME.
#[must_use]
pub fn shared_object(machine: Machine, soname: &str) -> Vec<u8> {
    let wide = machine.wide();
    let (header, program, symbol, entry): (u64, u64, u64, u64) =
        if wide { (64, 56, 24, 16) } else { (52, 32, 16, 8) };
    let strings = format!("\0{soname}\0{SYMBOL}\0{NEEDED}\0");
    let length = strings.len() as u64;
    let dynamic = header + 3 * program;
    let symbols = dynamic + (DYNAMIC.len() as u64 + 1) * entry;
    let hash = symbols + 2 * symbol;
    let text = hash + 5 * 4;
    let end = text + length;

    let mut out = Writer { bytes: b"\x7fELF".to_vec(), wide };
    out.bytes.extend([1 + u8::from(wide), 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.half(3); // ET_DYN
    out.half(machine.number());
    out.word(1);
    out.native(0); // no entry
    out.native(header); // program headers
    out.native(0); // no section headers
    out.word(0);
    for value in [header as u16, program as u16, 3, if wide { 64 } else { 40 }, 0, 0] {
        out.half(value);
    }
    // Writable, because older loaders relocate the dynamic section in place.
    out.segment(1, 6, 0, end, PAGE);
    out.segment(2, 6, dynamic, symbols - dynamic, 8);
    // Without this one the loader would ask for an executable stack.
    out.segment(0x6474_e551, 6, 0, 0, 16);
    let symbol_name = soname.len() as u64 + 2;
    let needed = symbol_name + SYMBOL.len() as u64 + 1;
    let values = [needed, 1, hash, text, symbols, length, symbol];
    for (tag, value) in DYNAMIC.into_iter().zip(values).chain([(0, 0)]) {
        out.native(tag);
        out.native(value);
    }
    out.symbol(0, 0, 0, 0);
    out.symbol(symbol_name as u32, 0x11, 0xfff1, VALUE); // global object, absolute
    for value in [1, 2, 1, 0, 0] {
        out.word(value); // one bucket, two symbols in one chain
    }
    out.bytes.extend(strings.as_bytes());
    out.bytes
}
