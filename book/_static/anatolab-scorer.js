// Sphinx puts this into its search script (html_search_scorer): chapters before the pages of the API.
var Scorer = {
  score: ([docname, title, anchor, descr, score, filename]) => {
    if (docname.startsWith("book/autoapi/")) return score * 0.2;
    if (docname.startsWith("notebooks/")) return score + 10;
    return score + 5;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
