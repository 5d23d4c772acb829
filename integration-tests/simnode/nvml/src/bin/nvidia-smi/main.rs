//! A stand-in for `nvidia-smi`: what it shows comes through the driver library that the loader finds, as with the real one.
//!
//! Decides which questions it understands and how it ends. Must not know the node: there and in a container it is the same.

mod library;
mod show;

use std::process::ExitCode;

use library::{Failure, Nvml};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match answer(&words) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn answer(words: &[&str]) -> Result<String, Failure> {
    match words {
        [] => show::table(&Nvml::load()?),
        ["-L" | "--list-gpus"] => show::list(&Nvml::load()?),
        ["topo", "-m" | "--matrix"] => show::topology(&Nvml::load()?),
        [query, format] => {
            let fields = query.strip_prefix("--query-gpu=").ok_or(Failure::Usage)?;
            let units = match *format {
                "--format=csv,noheader" => true,
                "--format=csv,noheader,nounits" => false,
                _ => return Err(Failure::Usage),
            };
            show::query(&Nvml::load()?, &fields.split(',').collect::<Vec<_>>(), units)
        }
        _ => Err(Failure::Usage),
    }
}
