//! The child process that reads PDFs: this program with one argument.

use astra_host::native::CONVERT;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// What the child makes of a file.
fn child(file: &'static str) -> Output {
    let file = std::fs::read(format!("{}/../../tests/fixtures/pdf/{file}.pdf", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let program = env!("CARGO_BIN_EXE_astra-edge");
    let mut child =
        Command::new(program).arg(CONVERT).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&file).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_file_is_read_without_any_environment() {
    let said = child("letter");
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8(said.stdout).unwrap(), r#"{"pages":["Efficient fjords: Žluťoučký kůň, Ελληνικά, Русский."]}"#);
}

#[test]
fn a_bomb_ends_the_child_with_its_memory() {
    let said = child("bomb");
    assert!(!said.status.success() && said.stdout.is_empty(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("memory allocation"), "{said:?}");
}
