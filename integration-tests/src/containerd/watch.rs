//! What `ctr events` shows, collected from a moment on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Containerd, unique};
use crate::{images, wait};

/// A running `ctr events` in the namespace for containers from ctr.
pub struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    /// Starts watching. What happens after this returns is seen.
    ///
    /// # Errors
    /// When ctr cannot be run, or shows nothing.
    pub fn start(containerd: &Containerd) -> Result<Self> {
        let ctr = containerd.ctr();
        let mut child = ctr.command(&["events"]).stdout(Stdio::piped()).spawn()?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let watch = Self { child, lines };
        // Nothing says that the subscription holds, so something harmless is changed until that is
        // seen.
        wait::until("the first event", || {
            let mark = format!("mark={}", unique("watch"));
            let _ = ctr.run(&["images", "label", images::BUSYBOX, &mark]);
            watch.seen().iter().any(|line| line.contains("/images/update")).then_some(())
        })?;
        Ok(watch)
    }

    /// The topics below `/tasks/` of the container `id` so far, in order.
    pub fn topics(&self, id: &str) -> Vec<String> {
        let lines = self.seen();
        let lines = lines.iter().filter(|line| line.contains(id));
        let topic = |line: &String| {
            line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned)
        };
        lines.filter_map(topic).collect()
    }

    /// Waits until the container's topics end with `/tasks/delete`, and gives them.
    ///
    /// # Errors
    /// When they never do.
    pub fn topics_to_the_end(&self, id: &str) -> Result<Vec<String>> {
        wait::until("the event of a container's deletion", || {
            // An exec's deletion has the same topic: what ends the list is the one after the last
            // exit.
            let topics = self.topics(id);
            topics
                .ends_with(&["/tasks/exit".to_owned(), "/tasks/delete".to_owned()])
                .then_some(topics)
        })
        .with_context(|| format!("seen: {:?}", self.topics(id)))
    }

    fn seen(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not SIGKILL: what bounds ctr's time passes this on to it.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
