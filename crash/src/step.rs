//! One process steps another through its instructions, and kills it.

use std::path::Path;
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::operation::Subject;

/// Runs a victim's operation for so many instructions, and kills it there. True when it was through by
/// then.
pub(crate) fn kill_after(subject: &Subject, path: &Path, instructions: u64) -> bool {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).arg("--victim").arg(subject.name()).arg(path).spawn();
    let mut child = child.expect("a victim");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process's number"));
    // It stops itself right before its operation, and right after.
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)));
    let mut is_through = false;
    for _ in 0..instructions {
        ptrace::step(pid, None).expect("a step");
        match waitpid(pid, None).expect("a stop") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {
                is_through = true;
                break;
            }
            other => panic!("the victim of {} ended: {other:?}", subject.name()),
        }
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    is_through
}

/// The victim: opens the file, stops, does its operation, stops.
pub(crate) fn be_the_victim(name: &str, path: &Path) {
    let subjects = Subject::all();
    let subject = subjects.iter().find(|subject| subject.name() == name).expect("an operation");
    let operation = subject.ready(path);
    ptrace::traceme().expect("to be traced");
    raise(Signal::SIGSTOP).expect("to stop");
    operation();
    raise(Signal::SIGSTOP).expect("to stop");
}
