// Mounts Swagger UI on the API's description, and has it ask the portal where this page came from.
(() => {
  const place = document.getElementById("api-viewer");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", paint);
  paint();

  const show = (spec) => {
    spec.servers = [{ url: place.dataset.server }];
    for (const answer of Object.values(spec.components.responses)) delete answer.headers;
    // The session is the browser's own affair: nobody types it, and no script can read it.
    delete spec.components.securitySchemes.session;
    for (const path of Object.values(spec.paths)) {
      for (const operation of Object.values(path)) {
        operation.security = (operation.security || []).filter((way) => !("session" in way));
        for (const answer of Object.values(operation.responses)) delete answer.headers; // the same ones each time
      }
    }
    window.SwaggerUIBundle({
      spec,
      domNode: place,
      deepLinking: false, // its links stand inside of buttons, which no keyboard and no reader gets along with,
      docExpansion: "list",
      defaultModelsExpandDepth: -1,
      filter: true,
      persistAuthorization: false,
      validatorUrl: null,
      presets: [window.SwaggerUIBundle.presets.apis],
    });
  };

  fetch(place.dataset.document)
    .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.status))))
    .then(show)
    .catch(() => {
      place.textContent = "The description of the API could not be read. Reload the page.";
    });
})();
