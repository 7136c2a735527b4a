//! What `iptables-save` prints, line by line: the one reader of it.

/// A chain or rule of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedLine<'a> {
    /// A chain.
    Chain {
        /// Its name.
        name: &'a str,
        /// What becomes of packets at its end; `-` for chains of users.
        policy: &'a str,
    },
    /// A rule.
    Rule {
        /// The chain it is in.
        chain: &'a str,
        /// The rest of the line, as `iptables-restore` takes it back.
        rule: &'a str,
    },
}

/// Chains and rules with the table that they are in. Counters and all other lines are left out.
pub fn saved_lines(text: &str) -> impl Iterator<Item = (&str, SavedLine<'_>)> {
    let mut table = "";
    text.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            return None;
        }
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let name = words.next().unwrap_or_default();
            let policy = words.next().unwrap_or_default();
            return Some((table, SavedLine::Chain { name, policy }));
        }
        let counted = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let rest = counted.map_or(line, |(_, rest)| rest).strip_prefix("-A ")?;
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        Some((table, SavedLine::Rule { chain, rule: rule.trim_end() }))
    })
}

/// The words of a rule as iptables reads them: quotes hold some together, with `\` before quotes
/// and backslashes within.
#[must_use]
pub fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = rule.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(letters.next()),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_their_table_and_no_counters() {
        let text = "# Generated\n*raw\n:OUTPUT ACCEPT [3:180]\nCOMMIT\n*nat\n:CW-MASQ - [0:0]\n\
                    [7:420] -A CW-MASQ -j RETURN\n-A POSTROUTING -j CW-MASQ\n-A EMPTY\nCOMMIT\n";
        let rule = |chain, rule| ("nat", SavedLine::Rule { chain, rule });
        let lines: Vec<_> = saved_lines(text).collect();
        let expected = [
            ("raw", SavedLine::Chain { name: "OUTPUT", policy: "ACCEPT" }),
            ("nat", SavedLine::Chain { name: "CW-MASQ", policy: "-" }),
            rule("CW-MASQ", "-j RETURN"),
            rule("POSTROUTING", "-j CW-MASQ"),
            rule("EMPTY", ""),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(
            words(r#"-m comment --comment "a \" \\ b" -j X"#),
            ["-m", "comment", "--comment", r#"a " \ b"#, "-j", "X"]
        );
        assert_eq!(words(r#"  "" a"b c"  "#), ["", "ab c"]);
        assert_eq!(words(""), [""; 0]);
    }
}
