//! `tidegate check FILE`: whether a configuration is sound, and what it means.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tidegate::policy::{CostRule, FileError, KeyPart, Rule, WhenDown};

use crate::config::{Config, ConfigError};

/// Checks a configuration as a whole: shows all that is wrong with it, each with line and field, or says in
/// plain words what it means. Nothing is started, and no file is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate check tidegate.toml            exits with 2 if anything is wrong
  tidegate check --quiet tidegate.toml    says nothing if all is well, for scripts
")]
pub(crate) struct Check {
    /// The configuration
    file: PathBuf,

    /// Say nothing when all is well
    #[arg(long, short)]
    quiet: bool,
}

/// As for bad arguments.
const EXIT_WRONG: u8 = 2;

impl Check {
    pub(crate) fn run(&self) -> ExitCode {
        let text = match Config::read(&self.file) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(EXIT_WRONG);
            }
        };
        match Config::from_text(&self.file, &text, None, None) {
            Ok(config) => {
                if !self.quiet {
                    let meaning = meaning(&self.file.display().to_string(), &config);
                    // Nobody may be reading; that is no reason to fail.
                    let _ = std::io::stdout().write_all(meaning.as_bytes());
                }
                ExitCode::SUCCESS
            }
            Err(ConfigError::Wrong(errors)) => {
                let colours = std::io::stderr().is_terminal();
                for error in &errors {
                    eprint!("{}", shown(error, &self.file.display().to_string(), &text, colours));
                }
                let plural = if errors.len() == 1 { "" } else { "s" };
                eprintln!("{}: {} error{plural}", self.file.display(), errors.len());
                ExitCode::from(EXIT_WRONG)
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(EXIT_WRONG)
            }
        }
    }
}

/// An error, with the line that it is about.
fn shown(error: &FileError, file: &str, text: &str, colours: bool) -> String {
    let (red, dim, off) = if colours { ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let mut shown = format!("{red}error{off}: {error}\n");
    // It may be about another file, that of keys.
    let is_here = error.to_string().starts_with(&format!("{file}:"));
    let line = text.lines().nth(error.line() - 1).filter(|line| is_here && !line.trim().is_empty());
    if let Some(line) = line {
        let number = error.line().to_string();
        let margin = " ".repeat(number.len());
        let before: String = line
            .chars()
            .take(error.column() - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        // Strings take everything.
        let _ = writeln!(
            shown,
            "  {dim}{number} |{off} {line}\n  {dim}{margin} |{off} {before}{red}^{off}"
        );
    }
    shown
}

/// What a sound configuration means.
fn meaning(file: &str, config: &Config) -> String {
    let mut out = format!("{file} is sound.\n\n");
    let behind = config.providers.main.as_ref().map(ToString::to_string);
    let behind = behind.as_deref().unwrap_or("the built-in demo API (there is no [upstream])");
    line(&mut out, format_args!("Listens on {}, in front of {behind}.", config.listen));
    line(&mut out, format_args!("Callers are known by {}.", config.identity.in_words()));
    let required: Vec<_> = config.auth_required.iter().map(|path| format!("`{path}`")).collect();
    match required.as_slice() {
        [] => line(&mut out, format_args!("No path needs a caller who is known.")),
        paths => {
            let open: Vec<_> = config.auth_open.iter().map(|path| format!("`{path}`")).collect();
            let but = if open.is_empty() { "" } else { ", but for " };
            let (paths, open) = (paths.join(", "), open.join(", "));
            line(
                &mut out,
                format_args!("Only known callers may call {paths}{but}{open}; others get 401."),
            );
        }
    }
    if let Some(traces) = &config.operation.traces {
        line(&mut out, format_args!("Traces: {traces}."));
    }
    let logins = config.failed_logins.policy().rules()[0].limit().rate();
    line(
        &mut out,
        format_args!("Wrong keys, and log-ins that fail behind: {logins} for each client address."),
    );
    if let Some(redis) = &config.redis {
        line(
            &mut out,
            format_args!(
                "Gateways share its rules, on the server that is set by [redis], in the namespace `{}`.",
                redis.namespace().name()
            ),
        );
    }
    line(
        &mut out,
        format_args!("\nA call passes when all of these rules that apply to it allow it:\n"),
    );
    let width = config.policy.rules().iter().map(|rule| rule.name().len()).max().unwrap_or(0);
    for rule in config.policy.rules() {
        let words = wrapped(&rule.in_words().to_string(), width + 4);
        line(&mut out, format_args!("  {:width$}  {words}", rule.name()));
    }
    let notes = notes(config);
    if !notes.is_empty() {
        line(&mut out, format_args!("\nThink about:\n"));
        notes.iter().for_each(|note| line(&mut out, format_args!("  - {}", wrapped(note, 4))));
    }
    out
}

/// Where servers have an LLM's API, but for `/v1`: Gemini's, Azure's, and those that run models themselves.
const LLM_PATHS: [&str; 5] = [
    "/v1alpha/models/a-model:generateContent",
    "/v1beta/models/a-model:generateContent",
    "/openai/deployments/a-model/chat/completions",
    "/api/chat",
    "/chat/completions",
];

/// What is no error, but may not be meant.
fn notes(config: &Config) -> Vec<String> {
    let rules = config.policy.rules();
    let enforced = || rules.iter().filter(|rule| !rule.is_dry_run());
    let covers_strangers = |rule: &Rule| {
        rule.matches().is_everyone()
            && rule.key().iter().all(|part| matches!(part, KeyPart::Ip | KeyPart::Global))
    };
    let mut notes = Vec::new();
    if !enforced().any(covers_strangers) {
        notes.push(
            "Nothing limits callers who are not known on every path. A rule with `key = \"ip\"` and \
             without `match` does."
                .to_owned(),
        );
    }
    if config.providers.main.is_some()
        && !enforced().any(|rule| !matches!(rule.cost(), CostRule::Fixed(_)))
    {
        notes.push(
            "No rule counts LLM tokens or money, so one user can spend any amount. A rule with \
             `cost = \"llm-tokens\"` bounds that."
                .to_owned(),
        );
    }
    let passes =
        |rule: &&Rule| rule.engine().is_some_and(|engine| engine.when_down == WhenDown::Allow);
    for rule in rules.iter().filter(passes) {
        notes.push(format!(
            "The rule `{}` limits nothing while its server does not answer. `when_down = \"share of 4\"` \
             does, with the number of gateways.",
            rule.name()
        ));
    }
    for rule in rules.iter().filter(|rule| rule.is_dry_run()) {
        notes.push(format!("The rule `{}` is a dry run, and denies nothing.", rule.name()));
    }
    for path in LLM_PATHS {
        let is_free = |rule: &Rule| !rule.matches().is_on_path(path);
        let mut counting =
            enforced().filter(|rule| !matches!(rule.cost(), CostRule::Fixed(_))).peekable();
        if config.providers.main.is_some() && counting.peek().is_some() && counting.all(is_free) {
            notes.push(format!(
                "No rule counts LLM tokens or money on `{path}`, where some servers have an LLM's API. Rules \
                 without a `path` are for all."
            ));
            break;
        }
    }
    if config.auth_required.is_empty() && config.identity.users().next().is_some() {
        notes.push(
            "There are keys, but no path needs one: `[auth] required = [\"/*\"]` says which do."
                .to_owned(),
        );
    }
    if config.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        notes.push("Everybody is a trusted proxy, so everybody can claim any address.".to_owned());
    }
    notes
}

/// A text in lines of at most 100 characters, the later ones indented by so much.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut out, mut column) = (String::new(), indent);
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > indent && column + 1 + length > 100 {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Strings take everything.
    let _ = writeln!(out, "{text}");
}
