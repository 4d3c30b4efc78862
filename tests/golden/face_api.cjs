// Writes the landmarks that face-api itself finds: the reference of tests/test_landmarks.py.
//   npm install @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4
//   node face_api.cjs MODEL_FOLDER IMAGES.bin N SIDE OUT.json
// IMAGES.bin: N images of SIDE x SIDE x 3 bytes. OUT: N lists of 136 numbers in pixels.
const fs = require('node:fs');
const path = require('node:path');
const Module = require('node:module');
const resolve = Module._resolveFilename;
// The CPU backend in plain JavaScript serves as well as the native one.
Module._resolveFilename = (name, ...rest) =>
  resolve(name === '@tensorflow/tfjs-node' ? '@tensorflow/tfjs' : name, ...rest);
const tf = require('@tensorflow/tfjs');
const faceapi = require(path.resolve('node_modules/@vladmandic/face-api/dist/face-api.node.js'));
const [folder, images, n, side, out] = process.argv.slice(2);

(async () => {
  await tf.setBackend('cpu');
  await tf.ready();
  const net = new faceapi.FaceLandmark68Net();
  const stem = `${folder}/face_landmark_68_model`;
  const manifest = JSON.parse(fs.readFileSync(`${stem}-weights_manifest.json`));
  const bytes = fs.readFileSync(`${stem}.bin`);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  net.loadFromWeightMap(tf.io.decodeWeights(buffer, manifest[0].weights));
  const pixels = fs.readFileSync(images);
  const size = side * side * 3;
  const found = [];
  for (let i = 0; i < n; i++) {
    const one = Int32Array.from(pixels.subarray(i * size, (i + 1) * size));
    const input = tf.tensor3d(one, [+side, +side, 3], 'int32');
    const marks = await net.detectLandmarks(input);
    found.push(marks.positions.flatMap((p) => [p.x, p.y]));
  }
  fs.writeFileSync(out, JSON.stringify(found));
})();
