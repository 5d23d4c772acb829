//! What a container sees from inside, told by its own shell.
//!
//! Decides the questions. Must not know by which way a container is asked.

use anyhow::Result;

use crate::{fact, lines};

/// What a container's shell says to these words on either of its streams.
pub type Ask<'a> = dyn Fn(&str) -> Result<String> + 'a;

const DEVICES: (&str, &str) = ("devices", "ls /dev | grep nvidia | tr '\\n' ' '");
const SHOWN: (&str, &str) =
    ("/proc/driver/nvidia/gpus", "ls /proc/driver/nvidia/gpus | tr '\\n' ' '");

/// The other questions, each with the shell's words for it.
const QUESTIONS: [(&str, &str); 4] = [
    ("NVIDIA_VISIBLE_DEVICES", "echo $NVIDIA_VISIBLE_DEVICES"),
    ("/usr/local/nvidia/lib64", "ls /usr/local/nvidia/lib64 | tr '\\n' ' ' | fold -s -w 110"),
    (
        "ldconfig -p",
        "ldconfig -p | grep -E 'libcuda.so.1|libnvidia-ml.so.1' | sed 's/^[[:space:]]*//'",
    ),
    ("nvidia-smi -L", "nvidia-smi -L"),
];

/// Opens the granted GPUs' nodes, and a node of each other GPU that it makes for itself.
const OPENS: &str = r#"
for minor in $MINORS; do
    node=/dev/nvidia$minor
    if [ -e $node ]; then kind=granted; else kind=other; node=/tmp/n$minor; mknod $node c 195 $minor; fi
    said=$( (: < $node) 2>&1 && echo it opens)
    echo "minor $minor, $kind: ${said##*: }"
done"#;

/// Asks everything.
pub fn look(ask: &Ask<'_>, gpus: usize, simulated: bool) -> Result<()> {
    for (what, question) in [DEVICES, SHOWN].into_iter().chain(QUESTIONS) {
        answer(what, &ask(question)?);
    }
    fact(match simulated {
        true => {
            "opening /dev/nvidia*: no driver is there (ENXIO), but the device rule decides first (EPERM):"
        }
        false => "opening /dev/nvidia*: the device rule decides",
    });
    lines(&ask(&opens(gpus))?.lines().map(|line| format!("  {line}\n")).collect::<String>());
    Ok(())
}

/// Asks what tells it from other containers: its devices, and that one of them opens and one of the others does not.
pub fn glance(ask: &Ask<'_>, gpus: usize) -> Result<()> {
    for (what, question) in [DEVICES, SHOWN] {
        answer(what, &ask(question)?);
    }
    let opened = ask(&opens(gpus))?;
    let one = |kind: &str| opened.lines().find(|line| line.contains(kind));
    let both: Vec<&str> = [", granted", ", other"].into_iter().filter_map(one).collect();
    fact(&format!("opening: {}", both.join("; ")));
    Ok(())
}

fn opens(gpus: usize) -> String {
    let minors: Vec<String> = (0..gpus).map(|minor| minor.to_string()).collect();
    OPENS.replace("$MINORS", &minors.join(" "))
}

fn answer(what: &str, text: &str) {
    let text = text.trim_end();
    if text.lines().count() == 1 {
        return fact(&format!("{what}: {text}"));
    }
    fact(&format!("{what}:"));
    lines(&text.lines().map(|line| format!("  {line}\n")).collect::<String>());
}
