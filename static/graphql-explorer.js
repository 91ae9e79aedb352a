// Mounts GraphiQL on the portal's GraphQL door, with the person's session. Nothing is kept in the browser's storage.
(() => {
  "use strict";

  const place = document.getElementById("graphql-explorer");
  const { door, csrf, group } = place.dataset;

  // Who sits down here next shall not read what was asked before.
  const kept = new Map();
  const storage = {
    get length() {
      return kept.size;
    },
    getItem: (name) => (kept.has(name) ? kept.get(name) : null),
    setItem: (name, value) => void kept.set(name, String(value)),
    removeItem: (name) => void kept.delete(name),
    clear: () => kept.clear(),
  };

  const fetcher = async (asked) => {
    const answer = await fetch(door, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": csrf },
      body: JSON.stringify(asked),
    });
    return answer.json();
  };

  const hint = "# Ctrl-Enter sends it."; // as long as a phone's line; the rest stands above the editor
  const runners = `
  group(fullPath: ${JSON.stringify(group)}) {
    runners(first: 20, sort: CONTACTED_DESC) {
      count
      nodes {
        id
        description
        status
        managers(first: 5) {
          count
          nodes {
            systemId
            version
            status
          }
        }
      }
    }
  }`;
  const defaultQuery = `${hint}
{
  currentUser {
    username
    name
  }${group ? runners : ""}
}
`;

  // The editors take Tab for themselves. After Escape they do not see the next one, so that the focus goes on.
  let leaving = false;
  const editors = ".CodeMirror";
  addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Shift" || !event.target.closest?.(editors)) return;
      if (event.key === "Tab" && leaving) event.stopPropagation();
      leaving = event.key === "Escape";
    },
    true,
  );
  addEventListener("focusin", () => { leaving = false; });

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const mount = ReactDOM.createRoot(place);
  const show = () =>
    mount.render(
      React.createElement(GraphiQL, {
        fetcher,
        defaultQuery,
        storage,
        isHeadersEditorEnabled: false,
        shouldPersistHeaders: false,
        defaultEditorToolsVisibility: "variables",
        forcedTheme: dark.matches ? "dark" : "light",
      }),
    );
  dark.addEventListener("change", show);
  show();
})();
