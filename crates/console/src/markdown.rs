//! The little Markdown of our own help pages, read into parts that the template escapes. Anything else stays text.

/// A part of a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    Title(Vec<Inline>),
    Heading(Vec<Inline>),
    Text(Vec<Inline>),
    List(Vec<Vec<Inline>>),
    Code(String),
    Table(Vec<Vec<Vec<Inline>>>),
}

/// A part of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Inline {
    Text(String),
    Code(String),
    Strong(String),
    Link { label: String, href: String },
}

/// Reads a page. Its links to pages beside it lead to below `folder`, such as `/errors`.
pub fn read(text: &str, folder: &str) -> Vec<Block> {
    let inline = |text: &str| inline(text, folder);
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        if line.starts_with("```") {
            let code: Vec<&str> = lines
                .by_ref()
                .take_while(|line| !line.starts_with("```"))
                .collect();
            blocks.push(Block::Code(code.join("\n")));
        } else if let Some(title) = line.strip_prefix("# ") {
            blocks.push(Block::Title(inline(title)));
        } else if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            blocks.push(Block::Heading(inline(heading)));
        } else {
            let mut group = vec![line];
            while let Some(next) = lines.next_if(|next| !next.trim().is_empty() && !starts_block(next)) {
                group.push(next);
            }
            blocks.push(grouped(&group, folder));
        }
    }
    blocks
}

fn starts_block(line: &str) -> bool {
    line.starts_with('#') || line.starts_with("```")
}

fn grouped(lines: &[&str], folder: &str) -> Block {
    let inline = |text: &str| inline(text, folder);
    if lines.iter().all(|line| line.starts_with('|')) {
        let is_rule = |line: &str| line.chars().all(|char| matches!(char, '|' | '-' | ':' | ' '));
        let rows = lines.iter().filter(|line| !is_rule(line));
        return Block::Table(
            rows.map(|row| {
                row.trim_matches('|')
                    .split('|')
                    .map(|cell| inline(cell.trim()))
                    .collect()
            })
            .collect(),
        );
    }
    let item = |line: &str| {
        line.strip_prefix("- ")
            .or_else(|| line.strip_prefix("* "))
            .map(str::to_owned)
    };
    if lines.first().is_some_and(|line| item(line).is_some()) {
        let mut items: Vec<String> = Vec::new();
        for line in lines {
            match (item(line), items.last_mut()) {
                (Some(first), _) => items.push(first),
                (None, Some(last)) => {
                    last.push(' ');
                    last.push_str(line.trim());
                }
                (None, None) => {}
            }
        }
        return Block::List(items.iter().map(|item| inline(item)).collect());
    }
    Block::Text(inline(
        &lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
    ))
}

fn inline(text: &str, folder: &str) -> Vec<Inline> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        match marked(rest, folder) {
            Some((part, after)) => {
                if !plain.is_empty() {
                    parts.push(Inline::Text(std::mem::take(&mut plain)));
                }
                parts.push(part);
                rest = after;
            }
            None => {
                plain.push(char);
                rest = &rest[char.len_utf8()..];
            }
        }
    }
    if !plain.is_empty() {
        parts.push(Inline::Text(plain));
    }
    parts
}

/// A marked part at the beginning of `text`, and what follows it.
fn marked<'a>(text: &'a str, folder: &str) -> Option<(Inline, &'a str)> {
    if let Some(rest) = text.strip_prefix('`') {
        let (code, after) = rest.split_once('`')?;
        return Some((Inline::Code(code.to_owned()), after));
    }
    if let Some(rest) = text.strip_prefix("**") {
        let (strong, after) = rest.split_once("**")?;
        return Some((Inline::Strong(strong.to_owned()), after));
    }
    let rest = text.strip_prefix('[')?;
    let (label, rest) = rest.split_once("](")?;
    let (target, after) = rest.split_once(')')?;
    let label = label.trim_matches('`').to_owned();
    // The pages lie side by side as files and as addresses.
    let href = match target.strip_suffix(".md") {
        Some("README") => folder.to_owned(),
        Some(page)
            if page
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') =>
        {
            format!("{folder}/{page}")
        }
        _ => return Some((Inline::Text(label), after)),
    };
    Some((Inline::Link { label, href }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_help_page_is_read() {
        let blocks = read(
            "# `a_code`\n\n**400.** Text over\ntwo lines.\n\n- one\n- two\n  more\n\n```sh\nrun\n```\n",
            "/errors",
        );
        assert_eq!(blocks[0], Block::Title(vec![Inline::Code("a_code".into())]));
        assert_eq!(
            blocks[1],
            Block::Text(vec![
                Inline::Strong("400.".into()),
                Inline::Text(" Text over two lines.".into())
            ])
        );
        assert_eq!(
            blocks[2],
            Block::List(vec![
                vec![Inline::Text("one".into())],
                vec![Inline::Text("two more".into())]
            ])
        );
        assert_eq!(blocks[3], Block::Code("run".into()));
    }

    #[test]
    fn only_our_own_pages_are_linked() {
        assert_eq!(
            inline("[a](b_c.md)", "/errors"),
            [Inline::Link {
                label: "a".into(),
                href: "/errors/b_c".into()
            }]
        );
        assert_eq!(inline("[a](javascript:x)", "/errors"), [Inline::Text("a".into())]);
        assert_eq!(inline("un`closed", "/errors"), [Inline::Text("un`closed".into())]);
    }
}
