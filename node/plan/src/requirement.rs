//! `NVIDIA_REQUIRE_*`: what an image says it needs of driver and GPU. It can only refuse.
//!
//! A requirement is alternatives between spaces, each of them constraints between commas: `cuda>=12.4 brand=tesla,driver>=535,driver<536`.
//! Every granted GPU must meet every requirement; without a GPU, `arch` and `brand` are taken as met. Versions compare number by
//! number, missing ones being 0; brands compare without regard to case. Source: libnvidia-container, `src/cli/dsl.c` and `configure.c`.
//!
//! Decides whether it is met. Must not know where the environment came from.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::inventory::{Driver, Gpu};
use crate::refusal::Refusal;

const PREFIX: &str = "NVIDIA_REQUIRE_";
const DISABLE: &str = "NVIDIA_DISABLE_REQUIRE";

/// Requirements of Tegra's software, which desktop and data-centre drivers do not have: NVIDIA's toolkit passes over them, too.
const JETPACK: &str = "NVIDIA_REQUIRE_JETPACK";

/// The most bytes that all requirements of an image may come to; the longest of CUDA's own images have some hundred.
const LONGEST: usize = 16 << 10;

/// What one image requires, read and bounded before any lock is held: the image decides how much there is of it.
#[derive(Debug)]
pub struct Requirements<'a> {
    each: Vec<Requirement<'a>>,
}

#[derive(Debug)]
struct Requirement<'a> {
    variable: &'a str,
    value: &'a str,
    alternatives: Vec<Vec<Constraint<'a>>>,
}

impl<'a> Requirements<'a> {
    /// Reads every `NVIDIA_REQUIRE_*` of `env` (`KEY=value` strings); `NVIDIA_DISABLE_REQUIRE=1` (or `true`) skips all.
    ///
    /// # Errors
    /// [`Refusal::BadRequirement`] naming the variable and what of it is not understood.
    pub fn parse(env: &'a [String]) -> Result<Self, Refusal> {
        let mut length = 0;
        let mut each = Vec::new();
        for (variable, value) in required(env) {
            length += value.len();
            if length > LONGEST {
                return Err(Refusal::BadRequirement {
                    variable: variable.to_owned(),
                    constraint: value.chars().take(32).collect(),
                    problem: format!("begins more than {LONGEST} bytes of requirements"),
                });
            }
            each.push(Requirement { variable, value, alternatives: parse(variable, value)? });
        }
        Ok(Self { each })
    }

    /// Checks them against what is granted.
    ///
    /// # Errors
    /// [`Refusal::Requirement`] naming variable, value, and what the node has instead.
    pub fn check(&self, driver: &Driver, gpus: &[&Gpu]) -> Result<(), Refusal> {
        for one in &self.each {
            let each = gpus.iter().map(|gpu| Some(*gpu)).chain(gpus.is_empty().then_some(None));
            for gpu in each {
                if !met(&one.alternatives, driver, gpu) {
                    return Err(Refusal::Requirement {
                        variable: one.variable.to_owned(),
                        value: one.value.to_owned(),
                        has: has(driver, gpu),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The requirements among these variables.
fn required(env: &[String]) -> Vec<(&str, &str)> {
    // Of a variable that is set twice the later counts, as for the container's own libc.
    let env: BTreeMap<&str, &str> = env.iter().filter_map(|entry| entry.split_once('=')).collect();
    let true_words = ["1", "t", "T", "TRUE", "true", "True"];
    if env.get(DISABLE).is_some_and(|value| true_words.contains(value)) {
        return Vec::new();
    }
    let is_ours = |name: &str| name.starts_with(PREFIX) && !name.starts_with(JETPACK);
    env.into_iter().filter(|(name, _)| is_ours(name)).collect()
}

/// One comparison: `driver>=535`.
#[derive(Debug)]
struct Constraint<'a> {
    key: Key,
    operator: Operator,
    value: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Cuda,
    Driver,
    Arch,
    Brand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

fn parse<'a>(variable: &str, value: &'a str) -> Result<Vec<Vec<Constraint<'a>>>, Refusal> {
    let constraints = |alternative: &'a str| {
        let parts = alternative.split(',').filter(|part| !part.is_empty());
        let parts = parts.map(|part| Constraint::parse(part).map_err(|why| (part, why)));
        parts.collect::<Result<Vec<_>, _>>()
    };
    let alternatives = value.split_ascii_whitespace().map(constraints).collect::<Result<_, _>>();
    alternatives.map_err(|(part, problem)| Refusal::BadRequirement {
        variable: variable.to_owned(),
        constraint: part.to_owned(),
        problem: problem.to_owned(),
    })
}

/// Any alternative will do; an empty one asks for nothing, and so does a value without any.
fn met(alternatives: &[Vec<Constraint<'_>>], driver: &Driver, gpu: Option<&Gpu>) -> bool {
    let holds = |all: &Vec<Constraint<'_>>| all.iter().all(|one| one.holds(driver, gpu));
    alternatives.is_empty() || alternatives.iter().any(holds)
}

impl<'a> Constraint<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let signs = |one: char| "<>=!".contains(one);
        let start = text.find(signs).ok_or("compares nothing (use = != < <= > >=)")?;
        let (name, rest) = text.split_at(start);
        let (sign, value) = rest.split_at(rest.find(|one| !signs(one)).unwrap_or(rest.len()));
        let key = match name.to_ascii_lowercase().as_str() {
            "cuda" => Key::Cuda,
            "driver" => Key::Driver,
            "arch" => Key::Arch,
            "brand" => Key::Brand,
            _ => return Err("is about nothing that is known (cuda, driver, arch, brand are)"),
        };
        let operator = match sign {
            "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">" => Operator::Greater,
            ">=" => Operator::GreaterOrEqual,
            _ => return Err("has no comparison that is known (use = != < <= > >=)"),
        };
        let equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        match key {
            _ if value.is_empty() => Err("compares with nothing"),
            Key::Brand if !equality => Err("orders brands (use = or !=)"),
            Key::Brand => Ok(Self { key, operator, value }),
            _ if numbers(value).is_none() => Err("compares with no version"),
            _ => Ok(Self { key, operator, value }),
        }
    }

    fn holds(&self, driver: &Driver, gpu: Option<&Gpu>) -> bool {
        let order = match (self.key, gpu) {
            (Key::Cuda, _) => self.version(&driver.cuda.to_string()),
            (Key::Driver, _) => self.version(&driver.version),
            (Key::Arch | Key::Brand, None) => return true,
            (Key::Arch, Some(gpu)) => self.version(&gpu.compute_capability.to_string()),
            (Key::Brand, Some(gpu)) => gpu.brand.to_lowercase().cmp(&self.value.to_lowercase()),
        };
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }

    /// How the node's version stands to the constraint's. One that is no version is older than all.
    fn version(&self, node: &str) -> Ordering {
        numbers(node).unwrap_or_default().cmp(&numbers(self.value).unwrap_or_default())
    }
}

/// `470.82.1` as numbers, without the zeros at its end, so that 12 and 12.0 are the same. `None` where it is no version.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let mut numbers: Vec<u64> = version.split('.').map(number).collect::<Option<_>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

fn has(driver: &Driver, gpu: Option<&Gpu>) -> String {
    let node = format!("this node has driver {} with CUDA {}", driver.version, driver.cuda);
    gpu.map_or_else(
        || node.clone(),
        |gpu| {
            let Gpu { uuid, compute_capability, brand, .. } = gpu;
            format!("{node}, and {uuid} is of arch {compute_capability}, brand {brand}")
        },
    )
}
