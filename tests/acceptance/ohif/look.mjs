// node look.mjs BASE_URL STUDY_UID WANT.json OUT_FOLDER
// Opens a study in OHIF as a reader would and writes what is to be seen to OUT_FOLDER/seen.json, with a picture of each:
// the segments (labels, voxels, centroids in mm, colours) and, for each report, the overlay's words and the lines drawn.
// WANT.json: {"seg": {"series", "segments"}, "reports": [{"series", "words": [...]}, ...]}: what to open and to wait for.
// It judges nothing: the test that calls it does.
import fs from 'node:fs';
import { chromium } from 'playwright-core';

const [, , base, study, wantFile, out] = process.argv;
const want = JSON.parse(fs.readFileSync(wantFile, 'utf8'));
const patience = 90000;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--use-angle=swiftshader', '--use-gl=angle', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist'],
});
const seen = { outside: [], errors: [], seg: null, reports: [] };

async function openStudy() {
  const page = await browser.newPage({ viewport: { width: 1600, height: 950 } });
  await page.addInitScript(() => localStorage.setItem('shownTours', '["basicViewerTour"]'));
  page.on('request', request => {
    const url = new URL(request.url());
    if (/^http/.test(url.protocol) && url.hostname !== '127.0.0.1') seen.outside.push(url.host);
  });
  page.on('pageerror', error => seen.errors.push(String(error).slice(0, 300)));
  await page.goto(`${base}/viewer?StudyInstanceUIDs=${study}`);
  await page.waitForFunction(() => {
    const viewport = window.cornerstone?.getRenderingEngines?.()[0]?.getViewports?.()[0];
    return document.querySelector('[data-cy="viewport-pane"] canvas') && (viewport?.getImageIds?.() || []).length > 0;
  }, null, { timeout: patience });
  await page.waitForTimeout(1500);
  return page;
}

async function lookAtSegments() {
  const page = await openStudy();
  await page.getByText(want.seg.series, { exact: true }).first().dblclick();
  await page.getByText('Yes', { exact: true }).click({ timeout: patience });
  await page.waitForFunction(count => {
    const found = window.services.segmentationService.getSegmentations()[0];
    return found && Object.values(found.segments).filter(s => s && s.segmentIndex).length >= count;
  }, want.seg.segments, { timeout: patience });
  seen.seg = await page.evaluate(() => {
    const { cornerstone, cornerstoneTools, services } = window;
    const found = services.segmentationService.getSegmentations()[0];
    const viewport = cornerstone.getRenderingEngines()[0].getViewports()[0];
    const sums = {};
    for (const id of found.representationData.Labelmap.imageIds) {
      const image = cornerstone.cache.getImage(id);
      const source = image.referencedImageId;
      const pixels = image.voxelManager ? image.voxelManager.getScalarData() : image.getPixelData();
      const here = {};
      pixels.forEach((value, i) => {
        if (!value) return;
        const sum = (here[value] ||= { n: 0, column: 0, row: 0 });
        sum.n += 1;
        sum.column += (i % image.columns) + 0.5;
        sum.row += Math.floor(i / image.columns) + 0.5;
      });
      for (const [value, sum] of Object.entries(here)) {
        const world = cornerstone.utilities.imageToWorldCoords(source, [sum.column / sum.n, sum.row / sum.n]);
        const total = (sums[value] ||= { n: 0, mm: [0, 0, 0] });
        total.n += sum.n;
        total.mm = total.mm.map((mm, axis) => mm + sum.n * world[axis]);
      }
    }
    return Object.values(found.segments).filter(s => s && s.segmentIndex).map(segment => {
      const sum = sums[segment.segmentIndex] || { n: 0, mm: [0, 0, 0] };
      const colour = cornerstoneTools.segmentation.config.color.getSegmentIndexColor(viewport.id, found.segmentationId, segment.segmentIndex);
      return { number: segment.segmentIndex, label: segment.label, voxels: sum.n, centroid_mm: sum.mm.map(mm => mm / sum.n), rgb: Array.from(colour).slice(0, 3) };
    });
  });
  await page.waitForTimeout(3000); // OHIF goes to the first slice of the SEG by itself, late
  await page.evaluate(([x, y, z]) => {
    const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
    const distance = id => {
      const plane = window.cornerstone.metaData.get('imagePlaneModule', id);
      const [a, b] = [plane.rowCosines, plane.columnCosines];
      const normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
      return Math.abs([x, y, z].reduce((sum, mm, axis) => sum + (mm - plane.imagePositionPatient[axis]) * normal[axis], 0));
    };
    const distances = viewport.getImageIds().map(distance);
    return viewport.setImageIdIndex(distances.indexOf(Math.min(...distances)));
  }, seen.seg[0].centroid_mm);
  await page.waitForTimeout(2500);
  await page.screenshot({ path: `${out}/segments.png` });
  await page.close();
}

async function lookAtReport(report, number) {
  const page = await openStudy();
  await page.getByText(report.series, { exact: true }).first().dblclick();
  const grid = '[data-cy="viewport-grid"]';
  for (const words of report.words) {
    await page.waitForFunction(([selector, text]) => document.querySelector(selector).innerText.replace(/\s+/g, ' ').includes(text),
      [grid, words], { timeout: patience }).catch(() => {});
  }
  await page.waitForTimeout(2000);
  const lines = await page.evaluate(() => window.cornerstoneTools.annotation.state.getAllAnnotations()
    .filter(a => a.metadata.toolName === 'DICOMSRDisplay')
    .map(a => ({ tracking_uid: a.data.TrackingUniqueIdentifier, image: a.metadata.referencedImageId, points_mm: a.data.renderableData.POLYLINE?.[0] || [], labels: a.data.labels })));
  const alive = await page.evaluate(selector => Boolean(document.querySelector(selector)), grid);
  const failed = await page.getByText('Something went wrong').count();
  const text = alive ? (await page.locator(grid).innerText()).replace(/\s+/g, ' ') : '';
  await page.screenshot({ path: `${out}/report-${number}.png` });
  seen.reports.push({ series: report.series, alive: alive && !failed, text, lines });
  await page.close();
}

try {
  await lookAtSegments();
  for (const [number, report] of want.reports.entries()) await lookAtReport(report, number + 1);
} finally {
  fs.writeFileSync(`${out}/seen.json`, JSON.stringify(seen, null, 1));
  await browser.close();
}
