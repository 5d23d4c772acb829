//! What a container sees from inside, told by its own shell.

use anyhow::Result;
use integration_tests::containerd::ctr::{Ctr, Said};

use crate::{fact, lines};

/// The questions, each with the shell's words for it.
const QUESTIONS: &[(&str, &str)] = &[
    ("devices", "ls /dev | grep nvidia | tr '\\n' ' '"),
    ("/proc/driver/nvidia/gpus", "ls /proc/driver/nvidia/gpus | tr '\\n' ' '"),
    ("NVIDIA_VISIBLE_DEVICES", "echo $NVIDIA_VISIBLE_DEVICES"),
    ("ldconfig -p", "ldconfig -p | grep -E 'libcuda.so.1|libnvidia-ml.so.1' | sed 's/^ *//'"),
    ("nvidia-smi -L", "nvidia-smi -L"),
];

/// Opens the granted GPU's node, and a node of each other GPU that it makes for itself.
const OPENS: &str = r#"
for minor in 0 1 2 3 4 5 6 7; do
    node=/dev/nvidia$minor
    if [ -e $node ]; then kind=granted; else kind=other; node=/tmp/n$minor; mknod $node c 195 $minor; fi
    echo "  minor $minor, $kind: $( (: < $node) 2>&1 | sed 's/.*: //' )"
done"#;

/// Asks container `id` everything.
pub fn look(ctr: &Ctr, id: &str, simulated: bool) -> Result<()> {
    for (what, question) in QUESTIONS {
        let said = ask(ctr, id, question)?;
        let text = said.out.trim_end();
        match text.lines().count() {
            0 => fact(&format!("{what}: {}", said.err.trim_end())),
            1 => fact(&format!("{what}: {text}")),
            _ => {
                fact(&format!("{what}:"));
                lines(&text.lines().map(|line| format!("  {line}\n")).collect::<String>());
            }
        }
    }
    if simulated {
        fact(
            "opening /dev/nvidia*: the driver is not there (ENXIO), but the device rule decides first (EPERM):",
        );
        let said = ask(ctr, id, OPENS)?;
        lines(&said.out);
    }
    Ok(())
}

fn ask(ctr: &Ctr, id: &str, question: &str) -> Result<Said> {
    let exec = integration_tests::containerd::unique("look");
    ctr.run(&["task", "exec", "--exec-id", &exec, id, "sh", "-c", question])
}
