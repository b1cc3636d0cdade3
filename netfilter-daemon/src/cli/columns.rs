//! Rows in columns, no wider than a page.

const PAGE: usize = 100;
const INDENT: usize = 2;
const GAP: usize = 2;
/// What a column is not made narrower than.
const NARROWEST: usize = 6;
const CUT: &str = "...";

/// Leaves out columns with nothing in them. Where a row is too wide, the cells of
/// the columns `names` are cut at their front, for a name's end tells whose it is.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], names: &[usize]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    while total(&widths) > PAGE
        && let Some(&widest) = names.iter().max_by_key(|&&name| widths[name])
        && widths[widest] > NARROWEST
    {
        widths[widest] -= 1;
    }
    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(INDENT);
        for (cell, &width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            line.push_str(&format!("{:<width$}{:GAP$}", cut(cell, width), ""));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn total(widths: &[usize]) -> usize {
    let shown = widths.iter().filter(|width| **width > 0);
    INDENT + shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1)
}

fn cut(cell: &str, width: usize) -> String {
    let length = cell.chars().count();
    if length <= width {
        return cell.to_owned();
    }
    let end = cell.chars().skip(length + CUT.len() - width);
    CUT.chars().chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_in_columns_and_empty_columns_are_left_out() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        assert_eq!(
            columns(&[row(["a", "", "1 s"]), row(["bcd", "", ""])], &[]),
            "  a    1 s\n  bcd\n"
        );
        assert_eq!(columns::<3>(&[], &[1]), "");
    }

    #[test]
    fn what_is_too_wide_is_cut_at_the_front_of_the_names_the_longest_first() {
        let long = format!("{}.example.com", "x".repeat(100));
        let row = ["192.0.2.1".to_owned(), "*.example.com".to_owned(), long];
        let text = columns(&[row], &[1, 2]);
        assert_eq!(text.trim_end().chars().count(), PAGE);
        assert!(
            text.starts_with("  192.0.2.1  *.example.com  ...xxx"),
            "{text}"
        );
        assert!(text.ends_with("x.example.com\n"), "{text}");
    }
}
