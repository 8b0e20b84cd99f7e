// The settings of OHIF, given as /viewer/app-config.js: images from this node's /dicom-web, nothing from elsewhere.
'use strict';

// What the viewer stores (segmentations, measurements) is a change like any other: it carries the session's token.
(() => {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url) {
    open.apply(this, arguments);
    const isHere = new URL(url, location.href).origin === location.origin;
    if (token && isHere && !/^(GET|HEAD|OPTIONS)$/i.test(method)) this.setRequestHeader('X-CSRF-Token', token);
  };
})();

window.config = {
  routerBasename: '/viewer',
  extensions: [],
  modes: [],
  customizationService: { 'ohif.tours': { $set: [] } },
  whiteLabeling: {
    createLogoComponentFn: React => React.createElement('a', { href: '/worklist', className: 'text-primary text-lg' }, 'Nadir'),
  },
  showStudyList: true,
  maxNumberOfWebWorkers: 3,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'Images of this node',
        name: 'nadir',
        wadoUriRoot: '/dicom-web',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        dicomUploadEnabled: false,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
