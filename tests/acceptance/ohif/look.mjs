// node look.mjs BASE_URL STUDY_UID WANT.json OUT_FOLDER
// Opens a study in the node's viewer as a reader would and writes what is to be seen to OUT_FOLDER/seen.json, with pictures:
// the segments of each SEG (labels, every voxel by image, colours as configured and as painted), for each report the
// overlay's words and the lines drawn, each picture or document as it shows, and the image at which a link opens.
// WANT.json: {"segs": [{"series", "segments", "paint"}], "reports": [{"series", "words": [...]}], "others": [series], "link": path}.
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
const seen = { outside: [], errors: [], segs: {}, reports: [], others: {}, link: null };

async function openStudy(path = `/viewer?StudyInstanceUIDs=${study}`) {
  const page = await browser.newPage({ viewport: { width: 1600, height: 950 } });
  page.on('request', request => {
    const url = new URL(request.url());
    if (/^http/.test(url.protocol) && url.origin !== base) seen.outside.push(url.host);
  });
  page.on('pageerror', error => seen.errors.push(String(error).slice(0, 300)));
  page.on('console', message => {
    if (/Content Security Policy/.test(message.text())) seen.errors.push(message.text().slice(0, 300));
  });
  await page.goto(base + path);
  await page.waitForFunction(() => {
    const viewport = window.cornerstone?.getRenderingEngines?.()[0]?.getViewports?.()[0];
    return document.querySelector('[data-cy="viewport-pane"] canvas') && (viewport?.getImageIds?.() || []).length > 0;
  }, null, { timeout: patience });
  await page.waitForTimeout(1500);
  return page;
}

async function lookAtSegments(seg, number) {
  const page = await openStudy();
  await page.getByText(seg.series, { exact: true }).first().dblclick();
  await page.getByText('Yes', { exact: true }).click({ timeout: patience });
  await page.waitForFunction(count => {
    const found = window.services.segmentationService.getSegmentations()[0];
    return found && Object.values(found.segments).filter(s => s && s.segmentIndex).length >= count;
  }, seg.segments, { timeout: patience });
  const segments = await page.evaluate(() => {
    const { cornerstone, cornerstoneTools, services } = window;
    const found = services.segmentationService.getSegmentations()[0];
    const viewport = cornerstone.getRenderingEngines()[0].getViewports()[0];
    const voxels = {};
    for (const id of found.representationData.Labelmap.imageIds) {
      const image = cornerstone.cache.getImage(id);
      const sop = image.referencedImageId.match(/instances\/([0-9.]+)/)[1];
      const pixels = image.voxelManager ? image.voxelManager.getScalarData() : image.getPixelData();
      pixels.forEach((value, i) => {
        if (value) ((voxels[value] ||= {})[sop] ||= []).push(i);
      });
    }
    return Object.values(found.segments).filter(s => s && s.segmentIndex).map(segment => {
      const colour = cornerstoneTools.segmentation.config.color.getSegmentIndexColor(viewport.id, found.segmentationId, segment.segmentIndex);
      return { number: segment.segmentIndex, label: segment.label, voxels: voxels[segment.segmentIndex] || {}, rgb: Array.from(colour).slice(0, 3) };
    });
  });
  if (seg.paint) {
    await page.waitForTimeout(3000); // OHIF goes to the first slice of the SEG by itself, late
    await page.evaluate(() => window.cornerstoneTools.segmentation.config.style.setStyle({ type: 'Labelmap' }, { renderFill: true, fillAlpha: 1, renderOutline: false }));
    for (const segment of segments) segment.painted = await paintedColour(page, segment, number);
  }
  seen.segs[seg.series] = segments;
  await page.close();
}

// The colour on the screen in the middle of the segment, on the image where most of it lies; its fill is opaque.
async function paintedColour(page, segment, number) {
  const [sop, voxels] = Object.entries(segment.voxels).reduce((a, b) => (b[1].length > a[1].length ? b : a), ['', []]);
  if (!sop) return null;
  await page.evaluate(uid => {
    const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
    return viewport.setImageIdIndex(viewport.getImageIds().findIndex(id => id.includes(`/${uid}/`)));
  }, sop);
  const place = await page.evaluate(indices => {
    const { cornerstone } = window;
    const viewport = cornerstone.getRenderingEngines()[0].getViewports()[0];
    const columns = cornerstone.cache.getImage(viewport.getCurrentImageId()).columns;
    const own = new Set(indices);
    const depth = i => { // how far it is to the edge along both axes
      let n = 0;
      while ([n, -n, n * columns, -n * columns].every(step => own.has(i + step))) n += 1;
      return n;
    };
    const middle = indices.reduce((a, b) => (depth(b) > depth(a) ? b : a));
    const world = cornerstone.utilities.imageToWorldCoords(viewport.getCurrentImageId(), [(middle % columns) + 0.5, Math.floor(middle / columns) + 0.5]);
    return viewport.worldToCanvas(world).map(v => Math.round(v * window.devicePixelRatio));
  }, voxels);
  let colour = null;
  for (let i = 0; i < 40; i += 1) { // it is painted late: wait for the colour that is configured, take the last one
    await page.waitForTimeout(500);
    colour = await page.evaluate(([x, y]) => {
      const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
      viewport.render();
      return Array.from(viewport.canvas.getContext('2d').getImageData(x, y, 1, 1).data).slice(0, 3);
    }, place);
    if (colour.every((value, channel) => Math.abs(value - segment.rgb[channel]) <= 2)) break;
  }
  await page.screenshot({ path: `${out}/seg-${number}-segment-${segment.number}.png` });
  return colour;
}

// As a reader does: one image on and back again. On a busy machine OHIF forgets to draw before something moves.
async function turnPages(page) {
  const box = await page.locator('[data-cy="viewport-pane"]').first().boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  for (const step of [100, -100]) {
    await page.mouse.wheel(0, step);
    await page.waitForTimeout(1500);
  }
}

async function lookAtReport(report, number) {
  const page = await openStudy();
  await page.getByText(report.series, { exact: true }).first().dblclick();
  const grid = '[data-cy="viewport-grid"]';
  for (const words of report.words) {
    await page.waitForFunction(([selector, text]) => document.querySelector(selector).innerText.replace(/\s+/g, ' ').includes(text),
      [grid, words], { timeout: report.patience || 20000 }).catch(() => turnPages(page));
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

async function lookAtOther(series, number) {
  const page = await openStudy();
  await page.getByText(series, { exact: true }).first().dblclick();
  await page.waitForTimeout(5000);
  const shown = await page.evaluate(selector => {
    const grid = document.querySelector(selector);
    const viewport = window.cornerstone.getRenderingEngines()[0]?.getViewports?.()[0];
    const images = viewport?.getImageIds?.() || [];
    const image = images.length ? window.cornerstone.cache.getImage(viewport.getCurrentImageId()) : null;
    const document_ = grid.querySelector('object[type="application/pdf"]')?.data || '';
    return { text: grid.innerText.replace(/\s+/g, ' '), images: images.length, columns: image?.columns, rows: image?.rows, colour: image?.color, document: document_ };
  }, '[data-cy="viewport-grid"]');
  if (shown.document) {
    shown.pdf = await page.evaluate(async url => (await (await fetch(url)).text()).slice(0, 5), shown.document);
  }
  await page.screenshot({ path: `${out}/other-${number}.png` });
  seen.others[series] = shown;
  await page.close();
}

async function lookAtLink(path) {
  const page = await openStudy(path);
  await page.waitForTimeout(3000);
  seen.link = await page.evaluate(() => window.cornerstone.getRenderingEngines()[0].getViewports()[0].getCurrentImageId());
  await page.screenshot({ path: `${out}/link.png` });
  await page.close();
}

try {
  for (const [number, seg] of want.segs.entries()) await lookAtSegments(seg, number + 1);
  for (const [number, report] of want.reports.entries()) await lookAtReport(report, number + 1);
  for (const [number, series] of want.others.entries()) await lookAtOther(series, number + 1);
  if (want.link) await lookAtLink(want.link);
} finally {
  fs.writeFileSync(`${out}/seen.json`, JSON.stringify(seen));
  await browser.close();
}
