//! How functions of one shape are written down: a line each.

/// `nvmlReturn_t name(nvmlDevice_t device, T *value)`, where the value follows from the GPU, and from the node.
macro_rules! values {
    ($($name:ident: $type:ty = |$gpu:pat_param, $state:pat_param| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: crate::opaque::Device, value: crate::pointer::Out<$type>) -> u32 {
            crate::gate::on_gpu(stringify!($name), device, |$gpu, $state| value.put($value))
        }
    )*};
}

/// `nvmlReturn_t name(nvmlDevice_t device, char *text, unsigned int length)`.
macro_rules! texts {
    ($($name:ident = |$gpu:ident| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: crate::opaque::Device, text: crate::pointer::Text, length: u32) -> u32 {
            crate::gate::on_gpu(stringify!($name), device, |$gpu, _| text.put($value, length))
        }
    )*};
}

/// `nvmlReturn_t name(nvmlDevice_t device, …)` that this GPU, or this node, cannot do.
macro_rules! unsupported {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: crate::opaque::Device $(, $argument: $type)*) -> u32 {
            $(let _ = $argument;)*
            crate::gate::on_gpu(stringify!($name), device, |_, _| {
                Err(simnode::code::Code::NOT_SUPPORTED)
            })
        }
    )*};
}

/// Asserts that structures have the size and alignment of those in NVML's header, which the bindings were made from.
#[cfg(test)]
macro_rules! alike {
    ($($own:ty = $real:ty;)*) => {$(
        assert_eq!(size_of::<$own>(), size_of::<$real>(), stringify!($own));
        assert_eq!(align_of::<$own>(), align_of::<$real>(), stringify!($own));
    )*};
}
