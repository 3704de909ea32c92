//! The `sluicegate` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use sluicegate::cli::{self, Cli, Command};
use sluicegate::{daemon, replay};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let socket = cli.socket();
    ExitCode::from(match &cli.command {
        Command::Run { config } => daemon::run(config, socket.as_deref()),
        Command::Check { config, live: false } => daemon::check(config),
        Command::Replay { config, input, output, explain, conntrack } => {
            replay::run(config, input, output, *explain, *conntrack)
        }
        tool => match tool.tool() {
            Some(argv) => cli::call_tool(socket.as_deref(), argv),
            None => 2,
        },
    })
}
