//! Golden messages of refusals and warnings that the other tests do not meet: each names the object, the reason and a way out.

use plan::{Nearest, Refusal, Warning};

fn owned(text: &str) -> String {
    text.to_owned()
}

#[test]
fn refusals_read_as_they_should() {
    let expected = [
        (
            Refusal::NoRoom {
                wanted: owned("gpus 1"),
                candidates: owned("GPU-a: being released by ns/pod/c"),
                nearest: Nearest::Nothing("nothing is free"),
                releasing: true,
            }
            .after_waiting(15),
            "berth: no room for gpus 1, after 15 s of waiting for what is being released: \
             GPU-a: being released by ns/pod/c; try again, and see berth ps and berth reconcile",
        ),
        (Refusal::NoDriver.after_waiting(15), &Refusal::NoDriver.to_string()),
        (
            Refusal::PriorSplit { by: owned("cdi edits"), gpu: owned("GPU-a") },
            "berth: cdi edits gave this container GPU-a as a whole, which is in MIG mode, so that nothing can run on it; \
             let it give an instance, or switch the mode off (nvidia-smi -i GPU-a -mig 0)",
        ),
        (
            Refusal::CdiUnresolved {
                name: owned("nvidia.com/gpu=9"),
                why: owned("no specification has it"),
            },
            "berth: CDI device nvidia.com/gpu=9: no specification has it; see what there is with berth cdi list, \
             or write the specification anew, as berth cdi generate does",
        ),
        (
            Refusal::CdiHook { name: owned("vendor.com/nic=1"), hook: owned("/opt/hook") },
            "berth: CDI device vendor.com/nic=1 brings the hook \"/opt/hook\", which Berth does not run; remove it from the \
             specification, or the node's operator sets policy.cdi-hooks = true",
        ),
        (
            Refusal::DeviceNode { path: owned("/dev/nvidia0"), why: owned("it is not there") },
            "berth: device node /dev/nvidia0: it is not there; make it with nvidia-modprobe, or check it with berth doctor",
        ),
    ];
    for (refusal, words) in expected {
        assert_eq!(refusal.to_string(), words);
    }
}

#[test]
fn warnings_read_as_they_should() {
    let expected = [
        (
            Warning::Musl { loader: owned("/lib/ld-musl-x86_64.so.1") },
            "the image's loader is musl (/lib/ld-musl-x86_64.so.1): the driver's libraries need glibc, so CUDA, NVML and \
             nvidia-smi cannot run in it; its devices are there; use an image with glibc",
        ),
        (
            Warning::NoLoaderCache {
                cache: owned("/etc/ld.so.cache"),
                libraries: owned("/usr/local/nvidia/lib64"),
            },
            "the image has no /etc/ld.so.cache and its root cannot be written, so its loader does not find the driver's libraries: \
             run ldconfig when building the image, or set LD_LIBRARY_PATH=/usr/local/nvidia/lib64",
        ),
        (
            Warning::Without { what: owned("firmware"), why: owned("no such folder") },
            "firmware could not be brought: no such folder; the container runs without it",
        ),
    ];
    for (warning, words) in expected {
        assert_eq!(warning.to_string(), words);
    }
}
