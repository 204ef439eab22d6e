//! The file `.env`: one `NAME=value` a line, with values taken as they are written.
//!
//! This is a reader of our own because the libraries replace `$name` in a value, which changes a key or password silently,
//! and print the whole line in their errors, with the secret in it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// The name of the file.
const FILE: &str = ".env";

/// Why a line cannot be used. Never shows anything of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct LineError {
    line: usize,
    problem: &'static str,
}

/// The settings of the first `.env` in the working directory or above, or none if there is no such file.
pub(super) fn load() -> Result<Vec<(String, String)>, String> {
    let Some(path) = env::current_dir().ok().as_deref().and_then(find) else { return Ok(Vec::new()) };
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    decode(&text).map_err(|error| format!("{}, {error}", path.display()))
}

/// Adds these settings to the environment of the process, for the libraries that read it themselves: the AWS SDK's
/// credentials, `SSL_CERT_FILE`. Must be called while the process has one thread.
pub(super) fn export<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    use std::fmt::Write as _;

    let mut text = String::new();
    for (name, value) in settings {
        let mut escaped = String::new();
        for letter in value.chars() {
            if matches!(letter, '\\' | '"' | '$') {
                escaped.push('\\');
            }
            escaped.push(letter);
        }
        let escaped = escaped.replace('\n', "\\n");
        let _infallible = writeln!(text, "{name}=\"{escaped}\"");
    }
    dotenvy::from_read_override(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn find(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|folder| folder.join(FILE)).find(|file| file.is_file())
}

fn decode(bytes: &[u8]) -> Result<Vec<(String, String)>, LineError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        LineError { line, problem: "is not UTF-8" }
    })?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    lines
        .filter_map(|(index, text)| {
            let setting = parse_line(text).transpose()?;
            Some(setting.map_err(|problem| LineError { line: index + 1, problem }))
        })
        .collect()
}

/// The setting in a line, or none in an empty line or a comment.
fn parse_line(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.contains('\0') {
        return Err("has a NUL byte");
    }
    let (name, value) = line.split_once('=').ok_or("is not NAME=value")?;
    let name = name.trim_end();
    let name = name.strip_prefix("export ").map_or(name, str::trim_start);
    if !is_name(name) {
        return Err("does not begin with the name of a setting");
    }
    Ok(Some((name.to_owned(), parse_value(value)?)))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-'))
}

fn parse_value(text: &str) -> Result<String, &'static str> {
    let trimmed = text.trim_start();
    let (value, rest) = match trimmed.chars().next() {
        Some('\'') => {
            let (value, rest) = trimmed[1..].split_once('\'').ok_or(UNCLOSED)?;
            (value.to_owned(), rest)
        }
        Some('"') => parse_double_quoted(&trimmed[1..])?,
        _ => return Ok(before_comment(text).trim().to_owned()),
    };
    if before_comment(rest).trim().is_empty() { Ok(value) } else { Err("has text after the closing quote") }
}

const UNCLOSED: &str = "has a quote that is not closed on the same line";

/// Up to the closing quote, with `\\`, `\"`, `\$` and `\n` resolved; and what follows.
fn parse_double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match letters.next() {
                Some((_, escaped @ ('\\' | '"' | '$'))) => value.push(escaped),
                Some((_, 'n')) => value.push('\n'),
                _ => {
                    return Err("has a backslash in double quotes that is not \\\\, \\\", \\$ or \\n: \
                                use single quotes");
                }
            },
            letter => value.push(letter),
        }
    }
    Err(UNCLOSED)
}

/// A comment begins with a `#` after white space.
fn before_comment(text: &str) -> &str {
    let comment = text
        .char_indices()
        .zip(text.chars().skip(1))
        .find(|((_, before), letter)| before.is_whitespace() && *letter == '#');
    comment.map_or(text, |((index, _), _)| &text[..index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(line: &str) -> String {
        let settings = decode(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let [(_, value)] = settings.as_slice() else { panic!("{line}: {settings:?}") };
        value.clone()
    }

    #[test]
    fn a_value_is_taken_as_it_is_written() {
        for (line, value) in [
            ("A=plain", "plain"),
            ("A=pa$$word-$HOME-${HOME}-$1", "pa$$word-$HOME-${HOME}-$1"),
            ("A='pa$$word ${HOME} \\n #1'", "pa$$word ${HOME} \\n #1"),
            ("A=\"pa$$word ${HOME} #1\"", "pa$$word ${HOME} #1"),
            (r#"A="\\ \" \$x \n""#, "\\ \" $x \n"),
            (r"A=back\slash\n", r"back\slash\n"),
            ("A=a'b\"c", "a'b\"c"),
            ("A=#hash", "#hash"),
            ("A=a#b", "a#b"),
            ("A=a # comment", "a"),
            ("A='a' # comment", "a"),
            ("A= # comment", ""),
            ("A=", ""),
            ("A=''", ""),
            ("A=a=b==", "a=b=="),
            ("A=two words", "two words"),
            ("  export A = a\r", "a"),
            ("\u{feff}A=é", "é"),
        ] {
            assert_eq!(value_of(line), value, "{line}");
        }
        assert_eq!(decode(b"\n# A=1\n  \n"), Ok(Vec::new()));
        let names = |text: &str| decode(text.as_bytes()).expect("settings");
        assert_eq!(names("A=1\nB=2").len(), 2);
    }

    #[test]
    fn what_libraries_read_from_the_environment_is_what_the_file_says() {
        let (name, value) = ("SET_BY_THE_TEST_OF_DOTENV", r#"a$b ${c} "d" 'e' \\f #g"#);
        export([(name, value)]).expect("set");
        let set = env::vars_os().find(|(set, _)| set == name).map(|(_, value)| value);
        assert_eq!(set, Some(value.into()));
    }

    #[test]
    fn the_example_can_be_read() {
        let settings = decode(include_bytes!("../../../../.env.example")).expect("settings");
        assert!(settings.contains(&("EVENT_SYSTEM".to_owned(), "local".to_owned())), "{settings:?}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number_and_nothing_of_it_is_shown() {
        let secret = "hunter2-hunter2";
        for bad in [
            secret.to_owned(),
            format!("JWT SECRET={secret}"),
            format!("={secret}"),
            format!("JWT_SECRET='{secret}"),
            format!("JWT_SECRET=\"{secret}"),
            format!("JWT_SECRET='{secret}'{secret}"),
            format!("JWT_SECRET=\"\\x{secret}\""),
            format!("JWT_SECRET={secret}\0"),
        ] {
            let error = decode(format!("A=1\n\n{bad}\nB=2\n").as_bytes()).expect_err(&bad);
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with("line 3: "), "{bad}: {shown}");
            assert!(!shown.contains("hunter") && !shown.contains('\n'), "{bad}: {shown}");
        }
        let error = decode(b"A=1\nB=\xff\n").expect_err("not UTF-8");
        assert_eq!(error.to_string(), "line 2: is not UTF-8");
    }
}
