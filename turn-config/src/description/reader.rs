//! Takes values out of a TOML table one by one, and keeps every problem with its line.

use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Refusal};

/// Where something stands in the file, in bytes.
pub(super) type Span = std::ops::Range<usize>;

/// How far a key may be from a known one to be taken for a slip of the pen.
const NEAREST: usize = 3;

/// Collects problems; knows on which line a byte stands.
pub(super) struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

/// One table of the description. Keys that nobody has asked for when it is [finished](Section::finish) are unknown.
pub(super) struct Section<'t> {
    name: &'static str,
    at: Span,
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: Vec::new() }
    }

    /// Notes a problem with what stands at `at`.
    pub(super) fn refuse(&mut self, at: &Span, refusal: Refusal) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
        self.problems.push(Problem { line, refusal });
    }

    /// Every problem, in the order of the lines.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }
}

impl<'t> Section<'t> {
    /// The table of the whole file.
    pub(super) fn root(table: &'t Spanned<DeTable<'t>>) -> Self {
        Self { name: "", at: 0..0, table: Some(table.get_ref()), known: Vec::new() }
    }

    /// A table in this one; an absent one is empty.
    pub(super) fn section(&mut self, reader: &mut Reader<'t>, name: &'static str) -> Section<'t> {
        let mut section = Section { name, at: 0..0, table: None, known: Vec::new() };
        if let Some(value) = self.take(name) {
            section.at = value.span();
            section.table = value.get_ref().as_table();
            if section.table.is_none() {
                reader.refuse(&value.span(), wrong_type(name, value.get_ref(), "a table"));
            }
        }
        section
    }

    /// Whether this table stands in the file.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Notes a key that has no default and is not there.
    pub(super) fn missing(&self, reader: &mut Reader<'t>, key: &'static str) {
        reader.refuse(&self.at, Refusal::Missing { key, section: self.title() });
    }

    /// A text.
    pub(super) fn text(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Option<Spanned<String>> {
        let value = self.take(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Spanned::new(value.span(), text.to_owned())),
            None => {
                reader.refuse(&value.span(), wrong_type(&self.path(key), value.get_ref(), "a text"));
                None
            }
        }
    }

    /// A number within limits.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        reader: &mut Reader<'t>,
        key: &'static str,
        limits: std::ops::Range<u64>,
    ) -> Option<Spanned<T>> {
        let value = self.take(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            reader.refuse(&value.span(), wrong_type(&self.path(key), value.get_ref(), "a whole number"));
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| limits.contains(number))
            .and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let (min, max) = (limits.start, limits.end - 1);
            let refusal = Refusal::OutOfRange { key: self.path(key), value: integer.to_string(), min, max };
            reader.refuse(&value.span(), refusal);
        }
        Some(Spanned::new(value.span(), number?))
    }

    /// A text that stands for something else.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        reader: &mut Reader<'t>,
        key: &'static str,
        expected: &'static str,
    ) -> Option<Spanned<T>> {
        let text = self.text(reader, key)?;
        parse(reader, self.path(key), &text, expected)
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, reader: &mut Reader<'t>, key: &'static str) -> Vec<Spanned<String>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            reader.refuse(&value.span(), wrong_type(&self.path(key), value.get_ref(), "a list of texts"));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Spanned::new(item.span(), text.to_owned())),
                None => reader
                    .refuse(&item.span(), wrong_type(&self.path(key), item.get_ref(), "a list of texts")),
            }
        }
        texts
    }

    /// A list of texts that each stand for something else.
    pub(super) fn list<T: FromStr>(
        &mut self,
        reader: &mut Reader<'t>,
        key: &'static str,
        expected: &'static str,
    ) -> Vec<Spanned<T>> {
        let texts = self.texts(reader, key);
        texts.iter().filter_map(|text| parse(reader, self.path(key), text, expected)).collect()
    }

    /// Notes every key that was never asked for.
    pub(super) fn finish(self, reader: &mut Reader<'t>) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            if self.known.iter().any(|known| *known == key.get_ref()) {
                continue;
            }
            let distance = |known: &&&str| strsim::damerau_levenshtein(key.get_ref(), known);
            let nearest =
                self.known.iter().min_by_key(distance).filter(|known| distance(known) <= NEAREST).copied();
            let refusal =
                Refusal::UnknownKey { key: key.get_ref().to_string(), section: self.title(), nearest };
            reader.refuse(&key.span(), refusal);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn title(&self) -> String {
        if self.name.is_empty() { "the file".to_owned() } else { format!("[{}]", self.name) }
    }
}

fn parse<T: FromStr>(
    reader: &mut Reader<'_>,
    key: String,
    text: &Spanned<String>,
    expected: &'static str,
) -> Option<Spanned<T>> {
    match text.get_ref().parse() {
        Ok(value) => Some(Spanned::new(text.span(), value)),
        Err(_) => {
            reader.refuse(&text.span(), Refusal::Unreadable { key, value: text.get_ref().clone(), expected });
            None
        }
    }
}

fn wrong_type(key: &str, found: &DeValue<'_>, expected: &'static str) -> Refusal {
    Refusal::WrongType { key: key.to_owned(), found: found.type_str(), expected }
}
