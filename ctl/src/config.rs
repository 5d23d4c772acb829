//! `berth config show`: what is in force.

use engine::config::Config;

use crate::view;

/// Prints the effective configuration: TOML that could be a configuration file, or JSON.
pub fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    if json {
        return view::print_json(config);
    }
    let path = Config::path();
    let origin = if path.exists() { "read from" } else { "defaults; there is no" };
    let text = toml::to_string(config)?;
    let mut lines = vec![format!("# {origin} {}", path.display())];
    lines.extend(text.lines().map(str::to_owned));
    view::print_lines(&lines)
}
