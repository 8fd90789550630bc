// Reads the digits in image files with a Scanline server, and prints a line of JSON a file.
//
//     npm ci
//     node classify.js seven.png four.jpg
//     node classify.js --server digits.example:50051 --roots ca.pem --token-file token scans/*.png
//
// Options are read first. Exit code: 0 done, 1 a file could not be read, 2 no answer.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const TIMEOUT_MS = 30_000;
// What one call holds here; the server says in GetModel what it takes at most.
const FILES_A_CALL = 64;
// gRPC itself repeats what fails for the moment, and comes back to a full server when that says so.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "scanline.v1.Digits" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "5s",
        backoffMultiplier: 3,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

const { values: options, positionals: paths } = parseArgs({
  options: {
    server: { type: "string", default: "127.0.0.1:50051" },
    roots: { type: "string" },
    "token-file": { type: "string" },
  },
  allowPositionals: true,
});

const definition = loader.loadSync("scanline/v1/digits.proto", { includeDirs: [PROTOS], enums: String, defaults: true });
const { Digits } = grpc.loadPackageDefinition(definition).scanline.v1;
const credentials = options.roots
  ? grpc.credentials.createSsl(readFileSync(options.roots))
  : grpc.credentials.createInsecure();
const client = new Digits(options.server, credentials, { "grpc.service_config": JSON.stringify(SERVICE_CONFIG) });
const metadata = new grpc.Metadata();
if (options["token-file"]) {
  metadata.set("authorization", `Bearer ${readFileSync(options["token-file"], "utf8").trim()}`);
}

function classify(files) {
  const deadline = Date.now() + TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    client.classify({ files: { files } }, metadata, { deadline }, (error, response) =>
      error ? reject(error) : resolve(response.predictions),
    );
  });
}

try {
  for (let start = 0; start < paths.length; start += FILES_A_CALL) {
    const some = paths.slice(start, start + FILES_A_CALL);
    const predictions = await classify(some.map((path) => readFileSync(path)));
    predictions.forEach(({ digit, confidence, rejected, reason, error }, index) => {
      const answer = error ? { error } : { digit, confidence, ...(rejected && { rejected: reason }) };
      console.log(JSON.stringify({ path: some[index], ...answer }));
      if (error) process.exitCode = 1;
    });
  }
} catch (error) {
  console.error(`no answer from ${options.server}: ${error.message}`);
  process.exitCode = 2;
} finally {
  client.close();
}
