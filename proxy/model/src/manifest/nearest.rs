//! The word that was probably meant.

/// The nearest of `words` to what was written, if one is near enough to be meant: the same but for
/// case, or a slip or two away.
pub(super) fn nearest<'w>(
    written: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    /// Longer ones are not typos, and comparing them takes time.
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let lower = written.to_lowercase();
    // A third may be wrong, and one letter of a short word.
    let slips = (written.chars().count() / 3).clamp(1, 4);
    let near = words.into_iter().map(|word| (distance(&lower, &word.to_lowercase()), word));
    near.filter(|(distance, _)| *distance <= slips).min().map(|(_, word)| word)
}

/// How many letters are to be added, left out, changed or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, candidate) in other.iter().enumerate() {
            let changed = last[column] + usize::from(letter != candidate);
            let mut least = changed.min(last[column + 1] + 1).min(line[column] + 1);
            let swapped =
                row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *candidate;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut last, line);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_have_a_nearest_word_and_other_words_have_none() {
        const WORDS: [&str; 6] =
            ["selector", "sessionAffinity", "ports", "port", "targetPort", "type"];
        for (written, meant) in [
            ("selectr", Some("selector")),
            ("slector", Some("selector")),
            ("seletcor", Some("selector")),
            ("Selector", Some("selector")),
            ("prots", Some("ports")),
            ("por", Some("port")),
            ("targetport", Some("targetPort")),
            ("sesionAfinity", Some("sessionAffinity")),
            ("replicas", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, WORDS), meant, "{written}");
        }
        assert_eq!(nearest(&"selector".repeat(100), WORDS), None);
    }
}
