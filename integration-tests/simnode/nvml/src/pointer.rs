//! What C callers pass: places to write to, and text. The only file that follows their pointers.
//!
//! Every pointer is checked for null, which the real library answers with INVALID_ARGUMENT. That a pointer which is not null
//! leads where nvml.h says is the caller's duty, here as there.

use std::ffi::{CStr, c_char};

use simnode::code::Code;

/// What a function answers, but for success.
pub type Answer = Result<(), Code>;

/// A place for one `T`.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes there.
    pub fn put(self, value: T) -> Answer {
        self.check()?;
        // SAFETY: needed to answer at all; nvml.h makes callers pass a place for one `T`, and null was turned away.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// The first number there: where nvml.h has several versions of a structure, it says which one is meant.
    pub fn version(&self) -> Result<u32, Code> {
        self.check()?;
        // SAFETY: needed to know how much may be written; every structure with versions begins with this number, which callers set,
        // and null was turned away.
        Ok(unsafe { self.0.cast::<u32>().read() })
    }

    /// The same place, for the structure that its version has named.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Refuses a place that is none, before anything is done that could not be told.
    pub fn check(&self) -> Answer {
        if self.0.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(()) }
    }

    /// Reads what the caller has written there, such as a length or a version.
    pub fn get(&self) -> Result<T, Code>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: needed because lengths and versions are passed in the place for the answer; nvml.h makes callers set
        // those of the arguments that are read here, and `T` is plain data.
        Ok(unsafe { self.0.read() })
    }
}

/// A place for several `T`, whose number the caller passes beside it.
#[repr(transparent)]
pub struct Array<T>(*mut T);

impl<T> Array<T> {
    /// Writes `values` there, of which there is room for `room`. The number that was needed goes to `count` either way.
    pub fn put(self, values: Vec<T>, count: Out<u32>) -> Answer {
        let room = count.get()? as usize;
        let needed = values.len();
        count.put(u32::try_from(needed).unwrap_or(u32::MAX))?;
        if needed > room {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        self.fill(values)
    }

    /// Writes `values` there, which the caller has room for.
    pub fn fill(self, values: Vec<T>) -> Answer {
        if self.0.is_null() {
            return if values.is_empty() { Ok(()) } else { Err(Code::INVALID_ARGUMENT) };
        }
        for (index, value) in values.into_iter().enumerate() {
            // SAFETY: needed to answer with a list; the caller has said that there is room for at least so many.
            unsafe { self.0.add(index).write(value) };
        }
        Ok(())
    }

    /// Writes `values` there, and to `count` how many there are; a caller without an array learns the number alone.
    pub fn tell(self, values: Vec<T>, count: Out<u32>) -> Answer {
        count.put(u32::try_from(values.len()).unwrap_or(u32::MAX))?;
        if self.is_null() { Ok(()) } else { self.fill(values) }
    }

    /// Whether the caller has no array.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The entry at `index` as a place of its own; the caller has said that there are more.
    pub fn at(&self, index: usize) -> Out<T> {
        // Null stays null; `wrapping_add` does not follow the pointer.
        if self.0.is_null() { Out(self.0) } else { Out(self.0.wrapping_add(index)) }
    }
}

/// A place for text, whose length the caller passes beside it.
#[repr(transparent)]
pub struct Text(*mut c_char);

impl Text {
    /// Writes `text` and a NUL there.
    pub fn put(self, text: &str, room: u32) -> Answer {
        let bytes: Vec<c_char> = text.bytes().chain([0]).map(|byte| byte as c_char).collect();
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        if bytes.len() > room as usize {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        Array(self.0).fill(bytes)
    }
}

/// Text of the caller's.
#[repr(transparent)]
pub struct Given(*const c_char);

impl Given {
    /// The text.
    pub fn get(&self) -> Result<&str, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: needed to read what is asked for; nvml.h makes callers pass text that ends with a NUL, and it outlives
        // the call that `self` is an argument of.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::INVALID_ARGUMENT)
    }
}
