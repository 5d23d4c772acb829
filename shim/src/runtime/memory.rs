//! The memory policy of a container's processes: set in the child that becomes the OCI runtime, and inherited by what that launches.
//!
//! Preferred, never bound: what does not fit comes from elsewhere. Decides which of the kernel's policies says that best here. Must not
//! know why these nodes.
//! Source: set_mempolicy(2); Documentation/admin-guide/mm/numa_memory_policy.rst, for MPOL_PREFERRED_MANY (Linux 5.15).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, c_long, c_ulong};

/// `MPOL_PREFERRED` (include/uapi/linux/mempolicy.h): one node.
const PREFERRED: c_int = 1;
/// `MPOL_PREFERRED_MANY`: the nearest of several.
const PREFERRED_MANY: c_int = 5;
/// `MPOL_F_STATIC_NODES`: the nodes mean themselves, also when the process comes into another cpuset.
const STATIC_NODES: c_int = 1 << 15;

const BITS: u32 = c_ulong::BITS;

/// Memory comes from these nodes as long as they have any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    mode: c_int,
    mask: Vec<c_ulong>,
}

impl MemoryPolicy {
    /// The best policy for these nodes, not empty, that the kernel takes from us, which is found out by setting it for this thread: it is to
    /// end soon.
    ///
    /// # Errors
    /// What the kernel said: ENOSYS without NUMA, EPERM from a seccomp filter, EINVAL for a node that it does not have.
    pub fn try_here(nodes: &[u32]) -> io::Result<Self> {
        let many = Self { mode: PREFERRED_MANY | STATIC_NODES, mask: mask(nodes) };
        match many.set() {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // An older kernel: of several nodes it can prefer one.
                let first = nodes.iter().min().copied();
                let one = Self { mode: PREFERRED | STATIC_NODES, mask: mask(first.as_slice()) };
                one.set().map(|()| one)
            }
            tried => tried.map(|()| many),
        }
    }

    /// Lets the child that `command` makes have this policy.
    pub fn before_exec(&self, command: &mut Command) {
        let policy = self.clone();
        // SAFETY: (why needed) the policy is a thread's own and is inherited by what it executes. (why sound) between fork and exec one
        // system call is made, with memory that was allocated before; the child allocates nothing.
        unsafe {
            command.pre_exec(move || {
                // It has been tried: a container is not lost for what it can do without.
                let _ = policy.set();
                Ok(())
            });
        }
    }

    fn set(&self) -> io::Result<()> {
        let bits = self.mask.len() as c_ulong * c_ulong::from(BITS);
        // The kernel looks at one bit less than it is told of (set_mempolicy(2), BUGS in get_mempolicy's family).
        let most = bits + 1;
        // SAFETY: (why needed) neither std nor nix wraps set_mempolicy. (why sound) the kernel reads `bits` bits from `mask`, which has as
        // many and outlives the call, and writes nothing.
        let done: c_long = unsafe {
            libc::syscall(
                libc::SYS_set_mempolicy,
                c_long::from(self.mode),
                self.mask.as_ptr(),
                most,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// A bit for each node.
fn mask(nodes: &[u32]) -> Vec<c_ulong> {
    let words = nodes.iter().max().map_or(0, |most| most / BITS + 1);
    let mut mask = vec![0; words as usize];
    for node in nodes {
        mask[(node / BITS) as usize] |= 1 << (node % BITS);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::CHILDREN;
    use std::sync::PoisonError;

    #[test]
    fn each_node_is_a_bit() {
        assert_eq!(mask(&[0, 2]), [0b101]);
        assert_eq!(mask(&[64, 1]), [0b10, 1]);
        assert!(mask(&[]).is_empty());
    }

    #[test]
    fn a_child_has_the_policy_and_we_have_not() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = std::thread::spawn(|| MemoryPolicy::try_here(&[0])).join().expect("no panic");
        // A kernel without NUMA has no policies.
        let Ok(policy) = tried else { return };
        let mut command = Command::new("head");
        command.args(["-n1", "/proc/self/numa_maps"]);
        policy.before_exec(&mut command);
        let said = command.output().expect("head exists");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("prefer") && said.contains("=static:0"), "{said}");
        let own = std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap_or_default();
        assert!(!own.contains("prefer"), "{own}");
    }

    #[test]
    fn a_node_that_is_not_there_is_an_error() {
        let tried =
            std::thread::spawn(|| MemoryPolicy::try_here(&[1000])).join().expect("no panic");
        assert!(tried.is_err());
    }
}
